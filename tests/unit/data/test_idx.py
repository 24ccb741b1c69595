import gzip
import hashlib
import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cem.config import IdxDataset
from cem.data.check import check_files
from cem.data.sources import DataError, read_source
from cem.data.sources.idx import read_idx

FASHION = [
    Path("/usr/share/datasets/fashion-mnist", name)
    for name in (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
]


def refused(dataset: IdxDataset, message: str) -> None:
    """The check before any job and the reading itself refuse alike."""
    for refuses in (check_files, read_source):
        with pytest.raises(DataError, match=message):
            refuses(dataset)


def test_gzipped_and_plain_files_come_back_as_written(idx: IdxDataset, images: np.ndarray, labels: np.ndarray) -> None:
    check_files(idx)
    source = read_source(idx)
    np.testing.assert_array_equal([source.images[row] for row in range(60)], images)
    np.testing.assert_array_equal(source.labels, labels)
    np.testing.assert_array_equal(source.is_test, np.arange(60) >= 45)
    assert source.class_names == ("0", "1", "2")
    assert source.sha256 == hashlib.sha256(b"".join(Path(path).read_bytes() for path in idx.files())).hexdigest()


def test_without_test_files_there_is_no_test_part(idx: IdxDataset) -> None:
    assert read_source(idx.model_copy(update={"test_images": None, "test_labels": None})).is_test is None


@pytest.mark.parametrize("name", ["images", "labels", "test_images", "test_labels"])
def test_an_absent_file_is_named(idx: IdxDataset, name: str) -> None:
    path = Path(getattr(idx, name))
    path.unlink()
    refused(idx, re.escape(str(path)) + ".*cannot read it")


def test_a_truncated_plain_file_gives_both_counts(idx: IdxDataset) -> None:
    path = Path(idx.test_images or "")
    path.write_bytes(path.read_bytes()[:-100])
    refused(idx, rf"{re.escape(str(path))}: expected {15 * 28 * 20} bytes .*found {15 * 28 * 20 - 100}.*truncated")


def test_a_truncated_gzip_file_gives_both_counts(idx: IdxDataset) -> None:
    path = Path(idx.images)
    path.write_bytes(path.read_bytes()[:-2000])
    refused(idx, rf"{re.escape(str(path))}: expected {45 * 28 * 20} bytes .*found [1-9]\d*, then damage: .*truncated")


def test_bytes_beyond_the_declared_size_are_refused(idx: IdxDataset) -> None:
    path = Path(idx.images)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + b"more"))
    refused(idx, rf"expected {45 * 28 * 20} bytes .*found more")


@pytest.mark.parametrize("count", [60, 2**20])
def test_a_small_file_that_unpacks_to_much_does_not_fill_the_memory(idx: IdxDataset, count: int) -> None:
    path = Path(idx.images)
    header = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (count, 28, 200))
    path.write_bytes(gzip.compress(header + bytes(200 << 20), compresslevel=9))
    tracemalloc.start()
    asks = "more. The file is truncated or damaged" if count == 60 else "which no images are packed to"
    with pytest.raises(DataError, match=asks):
        read_idx(str(path), 3)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 20 << 20


def test_a_pipe_is_refused_and_not_waited_for(idx: IdxDataset) -> None:
    Path(idx.images).unlink()
    os.mkfifo(idx.images)
    refused(idx, "expected an idx file, found a pipe or device")


def test_labels_are_named_with_their_file(idx: IdxDataset) -> None:
    path = Path(idx.labels)
    content = bytearray(path.read_bytes())
    content[8:] = bytes([9]) * len(content[8:])  # so that the classes 3 to 8 have no image
    path.write_bytes(content)
    refused(idx, re.escape(str(path)))


def test_swapped_images_and_labels_are_noticed(idx: IdxDataset) -> None:
    refused(idx.model_copy(update={"images": idx.labels, "labels": idx.images}), "magic number 0x0000080[13]")


def test_a_file_without_a_whole_header_is_refused(idx: IdxDataset) -> None:
    Path(idx.test_labels or "").write_bytes(b"\0\0\x08")
    refused(idx, "found 3 bytes starting with 0x000008.*that the file is whole")


@pytest.mark.parametrize("content", [b"", b"<html>", b"\x93NUMPY", bytes([0, 0, 9, 3]) + bytes(12)])
def test_what_is_there_instead_of_an_idx_file_is_said(idx: IdxDataset, content: bytes) -> None:
    Path(idx.test_images).write_bytes(content)
    kinds = {b"": "an empty file", b"<html>": "a web page", b"\x93NUMPY": "a single NumPy array"}
    refused(idx, f"That is {kinds.get(content, 'a file of another kind')}.*start of the file is lost")


def test_counts_that_differ_are_refused(idx: IdxDataset) -> None:
    refused(idx.model_copy(update={"labels": idx.test_labels}), "45 images and 15 labels")


def test_training_images_are_no_test_images(idx: IdxDataset) -> None:
    same = {"test_images": idx.images, "test_labels": idx.labels}
    refused(idx.model_copy(update=same), "expected test images of their own, found the training images")


def test_half_a_test_part_is_refused(idx: IdxDataset) -> None:
    refused(idx.model_copy(update={"test_labels": None}), "test_images and test_labels together")


def test_parts_of_different_sizes_are_refused(idx: IdxDataset, tmp_path: Path) -> None:
    path = Path(idx.test_images or "")
    path.write_bytes(
        bytes([0, 0, 8, 3]) + np.array([15, 9, 8], ">u4").tobytes() + bytes(i % 251 for i in range(72 * 15))
    )
    refused(idx, "one size, found .*images 'idx' with 20×28 and .*test_images 'idx' with 8×9 pixels.*fit: crop")


@pytest.mark.skipif(
    not all(path.exists() for path in FASHION), reason="Debian's dataset-fashion-mnist is not installed"
)
def test_real_fashion_mnist() -> None:
    images, labels, test_images, test_labels = map(str, FASHION)
    source = read_source(
        IdxDataset(name="fashion", images=images, labels=labels, test_images=test_images, test_labels=test_labels)
    )
    assert (len(source.images), source.images[69_999].shape) == (70_000, (28, 28))
    np.testing.assert_array_equal(np.bincount(source.labels), [7000] * 10)
