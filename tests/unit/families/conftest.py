"""Raw data in each form that the project reads: sixty images of ten classes."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cem.storage.hdf5 import SPLITS

TEST = 20  # the last images, where a form has a test part


@pytest.fixture(scope="session")
def raw_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that EXAMPLES of the data sets name."""
    root = tmp_path_factory.mktemp("raw")
    images = np.random.default_rng(0).integers(0, 256, (60, 28, 28), dtype=np.uint8)
    labels = (np.arange(60) % 10).astype(np.uint8)
    parts = {"": slice(0, -TEST), "test_": slice(-TEST, None)}
    (root / "idx").mkdir()
    (root / "zoo/MNIST/raw").mkdir(parents=True)
    for (part, rows), name in zip(parts.items(), ("train", "t10k"), strict=True):
        for array, kind, dims in ((images[rows], "images", 3), (labels[rows], "labels", 1)):
            content = bytes([0, 0, 8, dims]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            (root / f"idx/{part}{kind}").write_bytes(gzip.compress(content) if part else content)
            (root / f"zoo/MNIST/raw/{name}-{kind}-idx{dims}-ubyte").write_bytes(content)
    np.savez(root / "small.npz", x=images, y=labels, train=np.arange(60) < 60 - TEST)
    splits = dict(zip(SPLITS, np.split(np.arange(60), 4), strict=True))
    pairs = {"x": images, "y": labels, "z": images[:, None, ::7, ::7] / np.float32(255)}
    np.savez(root / "pairs.npz", **{f"{s}_{name}": pairs[name][rows] for s, rows in splits.items() for name in pairs})
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = root / f"folder/class{label}/{number:02}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    return root
