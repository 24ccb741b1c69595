"""Seeded, class-structured images: to test the pipeline with and to measure its speed, never to support a claim."""

import numpy as np
from jaxtyping import Float

from cem.config import SyntheticDataset
from cem.data.sources.packages import array_digest
from cem.data.sources.source import Format, Labelling, Source, check_labels, make_source

_COARSE = 5  # a smooth field is this many values per side, interpolated
_CONTRAST, _VARIATION, _NOISE = 24.0, 32.0, 12.0  # standard deviations in grey levels
_CHUNK = 1000  # images made at a time: bounds the memory


def read_synthetic(dataset: SyntheticDataset) -> Source:
    """Make the images: mid-grey + a smooth pattern of the class + a smooth pattern of the image + white noise.

    The image's own pattern is stronger than the class's, so a class is learned from many images, not from one. Equal
    settings give equal bytes.
    """
    labelling = synthetic_labels(dataset)
    rng = np.random.default_rng(dataset.seed)
    shape = (dataset.side, dataset.side, dataset.channels)
    # Channels are drawn independently, and more of them carry more information: the contrast falls with their number,
    # so that colour is no easier than grey.
    patterns = _CONTRAST / dataset.channels**0.5 * _smooth(rng, dataset.classes, dataset)
    images = np.empty((dataset.images, *shape), np.uint8)
    for start in range(0, dataset.images, _CHUNK):
        labels = labelling.labels[start : start + _CHUNK]
        values = 128 + patterns[labels] + _VARIATION * _smooth(rng, len(labels), dataset)
        values += _NOISE * rng.standard_normal(values.shape, np.float32)
        images[start : start + _CHUNK] = np.clip(np.rint(values), 0, 255)
    description = "Synthetic images: no claim may rest on them."
    return make_source(dataset.name, images, labelling, description, array_digest(images, labelling.labels))


def synthetic_labels(dataset: SyntheticDataset) -> Labelling:
    """Labels in turn: 0, 1, …, classes − 1, 0, 1, …"""
    labels = np.arange(dataset.images) % dataset.classes
    return check_labels(dataset.name, labels, class_names=[str(label) for label in range(dataset.classes)])


def _smooth(
    rng: np.random.Generator, count: int, dataset: SyntheticDataset
) -> Float[np.ndarray, "count side side channels"]:
    """Gaussian values on a coarse grid, interpolated linearly to side × side."""
    coarse = rng.standard_normal((count, _COARSE, _COARSE, dataset.channels), np.float32)
    place = np.linspace(0, _COARSE - 1, dataset.side)
    weights = np.clip(1 - abs(place[:, None] - np.arange(_COARSE)), 0, None).astype(np.float32)
    fields: np.ndarray = np.einsum("tv,nsvc->nstc", weights, np.einsum("su,nuvc->nsvc", weights, coarse))
    return fields


SYNTHETIC = Format(read_synthetic, synthetic_labels)
