import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cem.config import NpzDataset
from cem.data.check import check_files
from cem.data.sources import DataError, read_source
from cem.storage.files import sha256

Npz = Callable[..., NpzDataset]
UNPACK = Path(__file__).parents[4] / "shared" / "data" / "unpack.py"


def refused(dataset: NpzDataset, message: str) -> None:
    """The check before any job and the reading itself refuse alike."""
    for refuses in (check_files, read_source):
        with pytest.raises(DataError, match=re.escape(dataset.path) + ".*" + message):
            refuses(dataset)


def test_arrays_come_back_as_saved(npz: Npz, images: np.ndarray, labels: np.ndarray) -> None:
    dataset = npz(train=np.arange(60) < 45, classes=np.array(["ant", "bee", "ϕ"]))
    check_files(dataset)
    source = read_source(dataset)
    np.testing.assert_array_equal(source.images, images)
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(source.is_test, np.arange(60) >= 45)
    assert source.class_names == ("ant", "bee", "ϕ")
    assert source.sha256 == sha256(dataset.path)


def test_train_and_classes_may_be_left_out(npz: Npz) -> None:
    source = read_source(npz())
    assert source.is_test is None
    assert source.class_names == ("0", "1", "2")


def test_a_last_axis_of_one_is_grey(npz: Npz, images: np.ndarray) -> None:
    np.testing.assert_array_equal(read_source(npz(x=images[..., None])).images, images)


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    refused(NpzDataset(name="absent", path=str(tmp_path / "absent.npz")), "expected an npz file, found none")


@pytest.mark.parametrize("keep", [0, 100, 0.5, -1])
def test_a_truncated_file_is_refused(npz: Npz, keep: float) -> None:
    dataset = npz()
    whole = Path(dataset.path).read_bytes()
    Path(dataset.path).write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    refused(dataset, "truncated")


def test_damage_inside_is_refused(npz: Npz) -> None:
    dataset = npz()
    content = bytearray(Path(dataset.path).read_bytes())
    content[5000] ^= 0xFF  # a byte of x
    Path(dataset.path).write_bytes(content)
    with pytest.raises(DataError, match="'x', cannot read it"):
        read_source(dataset)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": None}, "expected arrays x .*found y"),
        ({"y": None}, "expected arrays x .*found x"),
        ({"x": np.zeros((60, 8, 8), np.float32)}, r"expected images as uint8 .*found float32 \[60, 8, 8\]"),
        ({"x": np.zeros((60, 3, 8, 8), np.uint8)}, r"channels come last"),
        ({"x": np.zeros((60, 8, 8, 4), np.uint8)}, r"found uint8 \[60, 8, 8, 4\]"),
        ({"x": np.zeros((60, 0, 8), np.uint8)}, r"found uint8 \[60, 0, 8\]"),
        ({"x": np.array([None] * 60)}, "expected images as uint8 .*found object"),
        ({"y": np.array([[0, 1], [2]], dtype=object)}, "expected an array of numbers .* object arrays"),
        ({"y": np.zeros(60)}, "expected labels as integers"),
        ({"y": np.arange(59) % 3}, "60 images and 59 labels"),
        ({"y": np.arange(60) % 3 - 1}, "found -1 to 1"),
        ({"y": np.full(60, 10**12)}, "expected labels from 0 to at most 59"),
        ({"y": np.arange(60) % 3, "classes": np.array(["a", "b"])}, "from 0 to at most 1, found 0 to 2"),
        ({"y": np.arange(60) % 3, "classes": np.array(list("abcd"))}, "all 4 classes, found none of 'd'"),
        ({"y": np.arange(60) % 3 * 2}, "all 5 classes, found none of '1', '3'"),
        ({"y": np.zeros(60, np.int64)}, "at least 2 classes, found 1"),
        ({"classes": np.array([[b"a"]])}, "expected classes as text"),
        ({"train": np.ones(60, np.int64)}, "as bool"),
        ({"train": np.ones(59, np.bool_)}, r"as bool \[60\].*found bool \[59\]"),
        ({"train": np.ones(60, np.bool_)}, "all 60 are marked as training images"),
        ({"x": np.zeros((0, 8, 8), np.uint8), "y": np.zeros(0, np.int64)}, "expected images, found none"),
    ],
)
def test_what_does_not_fit_is_refused(npz: Npz, changes: dict[str, np.ndarray], message: str) -> None:
    refused(npz(**changes), message)


@pytest.mark.skipif(not UNPACK.exists(), reason=f"{UNPACK} is not on this machine")
def test_real_cifar10(tmp_path: Path) -> None:
    path = tmp_path / "cifar10.npz"
    subprocess.run([sys.executable, UNPACK, path, "--limit-train", "200", "--limit-test", "100"], check=True)
    source = read_source(NpzDataset(name="cifar10", path=str(path)))
    assert source.images.shape == (300, 32, 32, 3)
    assert source.class_names[0] == "airplane"
    assert source.is_test is not None
    np.testing.assert_array_equal(np.bincount(source.labels[source.is_test]), [10] * 10)
