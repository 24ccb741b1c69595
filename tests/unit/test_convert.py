"""The script of the pages that makes an .npz file of SVHN's and CIFAR's files."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from cem.config import NpzDataset
from cem.data.sources import Source, read_source

SCRIPT = Path(__file__).parents[2] / "docs/convert.py"
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)


def convert(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, "out.npz", *arguments], cwd=folder, capture_output=True, text=True)


def converted(folder: Path, *arguments: str) -> Source:
    done = convert(folder, *arguments)
    assert done.returncode == 0, done.stderr
    return read_source(NpzDataset(name="out", path=str(folder / "out.npz")))


def test_svhn(tmp_path: Path) -> None:
    labels = np.arange(40) % 10 + 1  # 10 is the digit 0
    for name, rows in {"train": slice(0, 30), "test": slice(30, 40)}.items():
        savemat(tmp_path / f"{name}.mat", {"X": IMAGES[rows].transpose(1, 2, 3, 0), "y": labels[rows, None]})
    source = converted(tmp_path, "train.mat", "--test", "test.mat")
    np.testing.assert_array_equal(source.images, IMAGES)
    np.testing.assert_array_equal(source.labels, labels % 10)
    np.testing.assert_array_equal(source.is_test, np.arange(40) >= 30)


@pytest.mark.parametrize(("key", "meta", "names"), [("labels", "batches.meta", "label_names"),
                                                    ("fine_labels", "meta", "fine_label_names")])  # fmt: skip
def test_cifar(tmp_path: Path, key: str, meta: str, names: str) -> None:
    labels = np.arange(40) % 2
    flat = IMAGES.transpose(0, 3, 1, 2).reshape(40, 3072)
    for name, rows in {"b1": slice(0, 20), "b2": slice(20, 30), "test": slice(30, 40)}.items():
        content = {b"data": flat[rows], key.encode(): labels[rows].tolist()}
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol=2))
    (tmp_path / meta).write_bytes(pickle.dumps({names.encode(): [b"cat", b"dog"]}, protocol=2))
    source = converted(tmp_path, "b2", "b1", "--test", "test")
    np.testing.assert_array_equal(source.images, IMAGES)
    np.testing.assert_array_equal(source.labels, labels)
    assert source.class_names == ("cat", "dog")


def test_a_pickle_that_would_run_a_program_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "ran"),)

    (tmp_path / "b1").write_bytes(pickle.dumps(Hostile()))
    done = convert(tmp_path, "b1", "--test", "b1")
    assert done.returncode != 0
    assert "expected arrays and numbers" in done.stderr
    assert not (tmp_path / "ran").exists()
