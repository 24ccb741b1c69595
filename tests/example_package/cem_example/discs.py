"""Discs as a source of images."""

import hashlib

import numpy as np

from cem.data.sources.source import Format, Labelling, Source, check_labels, make_source
from cem_example.settings import Discs

RADII = (4, 8, 12)


def read(dataset: Discs) -> Source:
    """The images, 32×32 grey, each disc somewhere near the middle; equal settings give equal bytes."""
    labelling = read_labels(dataset)
    rng = np.random.default_rng(0)
    centres = rng.integers(12, 20, (dataset.images, 2))
    rows, columns = np.mgrid[:32, :32]
    distance = np.hypot(rows - centres[:, 0, None, None], columns - centres[:, 1, None, None])
    inside = distance < np.array(RADII)[labelling.labels, None, None]
    images = (np.where(inside, 200, 40) + rng.integers(-20, 20, inside.shape)).astype(np.uint8)
    return make_source(dataset.name, images, labelling, "Discs, made.", hashlib.sha256(images.tobytes()).hexdigest())


def read_labels(dataset: Discs) -> Labelling:
    """The labels alone, in a moment."""
    return check_labels(dataset.name, np.arange(dataset.images) % len(RADII), class_names=["small", "middle", "large"])


DISCS = Format(read, read_labels)
