import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.lib import format as npy

from cem.config import NpzDataset
from cem.data.check import check_files
from cem.data.sources import DataError, Source, read_source
from cem.storage.files import sha256

Npz = Callable[..., NpzDataset]
UNPACK = Path(__file__).parents[4] / "shared" / "data" / "unpack.py"


def refused(dataset: NpzDataset, message: str) -> None:
    """The check before any job and the reading itself refuse alike."""
    for refuses in (check_files, read_source):
        with pytest.raises(DataError, match=re.escape(dataset.path) + ".*" + message):
            refuses(dataset)


def every(source: Source) -> np.ndarray:
    return np.stack([source.images[row] for row in range(len(source.images))])


def test_arrays_come_back_as_saved(npz: Npz, images: np.ndarray, labels: np.ndarray) -> None:
    dataset = npz(train=np.arange(60) < 45, classes=np.array(["ant", "bee", "ϕ"]))
    check_files(dataset)
    source = read_source(dataset)
    np.testing.assert_array_equal(every(source), images)
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(source.is_test, np.arange(60) >= 45)
    assert source.class_names == ("ant", "bee", "ϕ")
    assert source.sha256 == sha256(dataset.path)


def test_train_and_classes_may_be_left_out(npz: Npz) -> None:
    source = read_source(npz())
    assert source.is_test is None
    assert source.class_names == ("0", "1", "2")


def test_a_last_axis_of_one_is_grey(npz: Npz, images: np.ndarray) -> None:
    np.testing.assert_array_equal(every(read_source(npz(x=images[..., None]))), images)


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
        ({"x": np.zeros((60, 8, 8), np.float32)}, r"uint8 .*found float32 \[60, 8, 8\].*rint\(255 \* x\)"),
        ({"x": np.full((60, 8, 8), np.nan)}, "expected images as uint8 .*found float64"),
        ({"x": np.zeros((60, 8, 8), np.uint16)}, "found uint16 .*others must be rescaled"),
        ({"x": np.zeros((60, 8, 8), ">i8")}, "expected images as uint8 .*found >i8"),
        ({"x": np.zeros((60, 3, 8, 8), np.uint8)}, r"channels come last.*x.transpose\(0, 2, 3, 1\)"),
        ({"x": np.zeros((60, 784), np.uint8)}, r"found uint8 \[60, 784\].*x.reshape\(-1, 28, 28\)"),
        ({"x": np.zeros((60, 784, 1), np.uint8)}, r"images of 784×1. Flattened .*x.reshape\(-1, 28, 28\)"),
        ({"x": np.zeros((60, 1, 784), np.uint8)}, r"images of 1×784. Flattened .*x.reshape\(-1, 28, 28\)"),
        ({"x": np.zeros((60, 1, 784, 1), np.uint8)}, r"images of 1×784. Flattened .*x.reshape\(-1, 28, 28\)"),
        (
            {"x": np.zeros((60, 3072), np.uint8)},
            r"x.reshape\(-1, 32, 32, 3\) or, with channels first",
        ),
        ({"x": np.zeros((60, 1024, 3), np.uint8)}, r"Flattened colour images: use x.reshape\(-1, 32, 32, 3\)\."),
        ({"x": np.zeros((60, 1024, 1, 3), np.uint8)}, r"Flattened colour images: use x.reshape\(-1, 32, 32, 3\)\."),
        ({"x": np.zeros((60, 3, 1024), np.uint8)}, r"use x.reshape\(-1, 3, 32, 32\).transpose\(0, 2, 3, 1\)"),
        ({"x": np.zeros((60, 1, 1024, 3), np.uint8)}, r"Flattened colour images: use x.reshape\(-1, 32, 32, 3\)\."),
        ({"x": np.zeros((60, 8, 65), np.uint8)}, "at most 8 times as long as wide, found .*8×65"),
        ({"x": np.zeros((60, 8, 8), np.uint8)}, "all are 0 or 1. .*multiply them by 255"),
        ({"x": np.indices((60, 8, 8)).sum(0).astype(np.uint8) % 2}, "all are 0 or 1. .*multiply them by 255"),
        ({"x": (np.indices((60, 8, 8)).sum(0) % 17).astype(np.uint8)}, "the largest is 16. Other scales"),
        ({"x": np.full((60, 8, 8), 9, np.uint8)}, "expected images that differ, but all are equal"),
        ({"x": np.asfortranarray(np.full((60, 8, 8), 9, np.uint8))}, "expected images that differ, but all are equal"),
        ({"y": np.eye(60)}, r"as integers \[n\], found float64 \[60, 60\].*y.argmax\(1\)"),
        ({"y": np.eye(60) + np.eye(60, k=1)}, r"has several labels, choose the one .*y\[:, column\]"),
        ({"y": np.array(list("abc") * 20)}, r"found <U1 \[60\].*numpy.unique\(names, return_inverse=True\)"),
        ({"y": np.arange(60) / 2}, "Some are no whole numbers: correct these"),
        ({"x": np.zeros((60, 8, 8), np.bool_)}, r"found bool \[60, 8, 8\].*255 \* x.astype"),
        ({"y": np.int64(3)}, "60 images and 1 labels"),
        ({"x": np.zeros((60, 8, 8, 4), np.uint8)}, r"found uint8 \[60, 8, 8, 4\]"),
        ({"x": np.zeros((60, 0, 8), np.uint8)}, r"found uint8 \[60, 0, 8\]"),
        ({"x": np.array([None] * 60)}, "expected images as uint8 .*found object"),
        ({"y": np.array([0, 1, 2] * 20, dtype=object)}, r"as 'y', found an object array.*\.astype\(numpy.int64\)"),
        ({"classes": np.array(list("abc"), dtype=object)}, r"as 'classes', found an object array.*\.astype\(str\)"),
        ({"classes": np.array(["a", "b", "caf\udce9"])}, "names of classes as text or as bytes in UTF-8"),
        ({"y": np.array([[0, 1], [2]], dtype=object)}, "as 'y', found an object array.*unequal length"),
        ({"y": np.zeros(60)}, "expected labels as integers"),
        ({"y": np.arange(59) % 3}, "60 images and 59 labels"),
        ({"y": np.arange(60) % 3 - 1}, "found -1 to 1"),
        ({"y": np.full(60, 10**12)}, "expected labels from 0 to at most 59"),
        ({"y": np.arange(60) % 3, "classes": np.array(["a", "b"])}, "from 0 to at most 1, found 0 to 2"),
        ({"y": np.arange(60) % 3, "classes": np.array(list("abcd"))}, "all 4 classes, found none of 'd'"),
        ({"y": np.arange(60) % 3 * 2}, "all 5 classes, found none of '1', '3'"),
        ({"y": np.zeros(60, np.int64)}, "at least 2 classes, found 1"),
        ({"classes": np.array([[b"a"]])}, "expected classes as text"),
        ({"classes": np.array([b"a", b"\xe9", b"c"])}, "names of classes as text or as bytes in UTF-8, found others"),
        ({"train": np.ones(60, np.int64)}, "as bool"),
        ({"train": np.ones(59, np.bool_)}, r"as bool \[60\].*found bool \[59\]"),
        ({"train": np.ones(60, np.bool_)}, "all 60 are marked as training images"),
        ({"x": np.zeros((0, 8, 8), np.uint8), "y": np.zeros(0, np.int64)}, "expected images, found none"),
    ],
)
def test_what_does_not_fit_is_refused(npz: Npz, changes: dict[str, np.ndarray], message: str) -> None:
    refused(npz(**changes), message)


@pytest.mark.parametrize("name", ["x_test", "is_test", "mask"])
def test_arrays_that_would_not_be_read_are_refused(npz: Npz, images: np.ndarray, name: str) -> None:
    refused(npz(**{name: images}), f"found also {name}, which would not be read")


def test_names_may_be_bytes_in_utf8(npz: Npz) -> None:
    assert read_source(npz(classes=np.array(["café".encode(), b"b", b"c"]))).class_names == ("café", "b", "c")


def test_labels_may_be_a_column_and_of_any_byte_order(npz: Npz, images: np.ndarray, labels: np.ndarray) -> None:
    dataset = npz(y=labels[:, None].astype(">u2"), x=np.asfortranarray(images))
    check_files(dataset)
    source = read_source(dataset)
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(every(source), images)


@pytest.mark.parametrize("names", [("{}_images", "{}_labels"), ("x_{}", "y_{}")], ids=["MedMNIST", "Keras"])
@pytest.mark.parametrize("parts", [("train", "val", "test"), ("train", "test"), ("train",)])
def test_given_parts_are_kept(
    npz: Npz, images: np.ndarray, labels: np.ndarray, names: tuple[str, str], parts: tuple[str, ...]
) -> None:
    rows = dict(zip(parts, np.split(np.arange(60), [30, 42][: len(parts) - 1]), strict=True))
    arrays = {names[0].format(part): images[rows[part]] for part in parts}
    arrays |= {names[1].format(part): labels[rows[part], None].astype(np.uint8) for part in parts}
    dataset = npz(x=None, y=None, **arrays)
    known = check_files(dataset)
    assert known is not None
    assert all(known.counts[part].sum() == len(rows[part]) for part in parts if part != "train"), (
        "the whole of a given part is used"
    )
    source = read_source(dataset)
    np.testing.assert_array_equal(every(source), images)
    np.testing.assert_array_equal(source.labels, labels)
    for part, marks in (("test", source.is_test), ("val", source.is_val)):
        assert (marks is None) == (part not in parts)
        assert marks is None or set(np.flatnonzero(marks)) == set(rows[part])


def test_a_part_without_its_labels_is_refused(npz: Npz, images: np.ndarray, labels: np.ndarray) -> None:
    refused(npz(x=None, y=None, x_train=images, y_train=labels, x_test=images), "no y_test. Add them")
    refused(npz(x=None, y=None, x_test=images, y_test=labels), "no x_train and no y_train")


@pytest.mark.parametrize("name", ["x_valid", "x_extra", "train", "mask"])
def test_arrays_beside_the_parts_that_would_not_be_read_are_refused(
    npz: Npz, images: np.ndarray, labels: np.ndarray, name: str
) -> None:
    refused(
        npz(x=None, y=None, x_train=images, y_train=labels, **{name: images}),
        f"found also {name}, which would not be read",
    )


@pytest.mark.parametrize("brace", [b"}", b"("])
def test_a_header_that_lost_a_bracket_is_refused(npz: Npz, brace: bytes) -> None:
    dataset = npz()
    content = Path(dataset.path).read_bytes()
    Path(dataset.path).write_bytes(content.replace(brace, b" ", 1))
    refused(dataset, "damaged")


def test_parts_may_differ_in_size_where_the_study_says_what_then(npz: Npz, images: np.ndarray) -> None:
    parts = {"x_train": images, "y_train": np.arange(60) % 2, "x_test": images[:9, :20], "y_test": np.arange(9) % 2}
    dataset = npz(x=None, y=None, **parts)
    with pytest.raises(DataError, match="x_train with 20×28 and x_test with 20×20 pixels"):
        check_files(dataset)
    check_files(dataset.model_copy(update={"fit": "crop"}))


@pytest.mark.parametrize("lost", [1, 30, 1000])
def test_a_file_without_its_start_is_refused(npz: Npz, lost: int) -> None:
    dataset = npz()
    Path(dataset.path).write_bytes(Path(dataset.path).read_bytes()[lost:])
    refused(dataset, f": expected a whole npz file, cannot read it: {lost} bytes of its start or middle are lost")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found an empty file"),
        (b"<html>Not found</html>", "found a web page"),
        (b"\x93NUMPY\x01\x00", r"found a single NumPy array \(.npy\)"),
        (b"PK\x03\x04" + bytes(50), "found one whose end is lost"),
        (bytes(50), "found a file of another kind"),
    ],
)
def test_what_is_there_instead_of_an_npz_is_said(npz: Npz, content: bytes, message: str) -> None:
    dataset = npz()
    Path(dataset.path).write_bytes(content)
    refused(dataset, rf"expected an npz file \(a zip of arrays\), {message}\. .*make or fetch it again")


def test_bytes_before_the_archive_do_no_harm(npz: Npz, images: np.ndarray) -> None:
    dataset = npz()
    Path(dataset.path).write_bytes(b"some bytes" + Path(dataset.path).read_bytes())
    check_files(dataset)
    np.testing.assert_array_equal(every(read_source(dataset)), images)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    refused(NpzDataset(name="folder", path=str(tmp_path)), "expected an npz file, found a folder")


def test_messages_have_the_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=re.escape(f"{tmp_path}/absent.npz: expected")):
        check_files(NpzDataset(name="absent", path="absent.npz"))


def test_a_header_that_promises_more_than_follows_is_refused(npz: Npz) -> None:
    """So no memory is taken for what is not there."""
    dataset = npz()
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "<i8", "fortran_order": False, "shape": (10**12,)})
    with zipfile.ZipFile(dataset.path, "w") as archive:
        archive.writestr("x.npy", b"")
        archive.writestr("y.npy", header.getvalue() + b"few")
    refused(dataset, "'y', cannot read it: .*take 8000000000000 bytes, but 3 follow")


def test_a_file_that_may_not_be_read_is_an_error_with_its_reason(npz: Npz, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all."""
    dataset = npz()

    def refused(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(zipfile, "ZipFile", refused)
    with pytest.raises(DataError, match=r"npz: expected an npz file, cannot read it: Permission denied\. Allow that"):
        check_files(dataset)


def test_a_name_that_no_file_can_have_is_an_error_with_its_reason(npz: Npz) -> None:
    dataset = npz().model_copy(update={"path": f"/tmp/{'a' * 300}.npz"})
    for refuses in (check_files, read_source):
        with pytest.raises(DataError, match=r"found one that cannot be looked at \(File name too long"):
            refuses(dataset)


def test_a_decompression_bomb_is_refused(npz: Npz, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = npz()
    np.savez_compressed(dataset.path, x=np.zeros((60, 200, 200), np.uint8), y=np.arange(60) % 3)
    monkeypatch.setattr("cem.data.sources.npz.BOMB", 10**6)
    refused(dataset, r"'x', cannot read it: \d+ bytes unpack to 24\d+")


@pytest.mark.skipif(not UNPACK.exists(), reason=f"{UNPACK} is not on this machine")
def test_real_cifar10(tmp_path: Path) -> None:
    path = tmp_path / "cifar10.npz"
    subprocess.run([sys.executable, UNPACK, path, "--limit-train", "200", "--limit-test", "100"], check=True)
    source = read_source(NpzDataset(name="cifar10", path=str(path)))
    assert every(source).shape == (300, 32, 32, 3)
    assert source.class_names[0] == "airplane"
    assert source.is_test is not None
    np.testing.assert_array_equal(np.bincount(source.labels[source.is_test]), [10] * 10)
