"""Raw data on disk that the tests of this folder share."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cem.config import IdxDataset, NpzDataset


@pytest.fixture
def idx_bytes() -> Callable[[np.ndarray], bytes]:
    """The content of an idx file."""
    return lambda array: (
        bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 28, 20), dtype=np.uint8)


@pytest.fixture
def labels() -> np.ndarray:
    return np.arange(60) % 3


@pytest.fixture
def idx(tmp_path: Path, images: np.ndarray, labels: np.ndarray, idx_bytes: Callable[[np.ndarray], bytes]) -> IdxDataset:
    """A gzipped training part of 45 images, a plain test part of 15."""
    paths = {name: tmp_path / f"{name} 'idx'" for name in ("images", "labels", "test_images", "test_labels")}
    paths["images"].write_bytes(gzip.compress(idx_bytes(images[:45])))
    paths["labels"].write_bytes(gzip.compress(idx_bytes(labels[:45])))
    paths["test_images"].write_bytes(idx_bytes(images[45:]))
    paths["test_labels"].write_bytes(idx_bytes(labels[45:]))
    return IdxDataset(name="small", **{name: str(path) for name, path in paths.items()})


@pytest.fixture
def npz(tmp_path: Path, images: np.ndarray, labels: np.ndarray) -> Callable[..., NpzDataset]:
    """Save an npz with what the test changes (None leaves an array out)."""

    def save(**changes: object) -> NpzDataset:
        arrays = {"x": images, "y": labels} | changes
        path = tmp_path / "it's small.npz"
        np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
        return NpzDataset(name="small", path=str(path))

    return save
