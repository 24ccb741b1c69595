"""MNIST's idx format, gzipped or not: a magic number, big-endian sizes, then bytes."""

import gzip
import io
import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from cem.config import IdxDataset
from cem.data.sources.files import BOMB, RATIO, content_digest, kind_of, local, shown, starting
from cem.data.sources.source import (
    DataError,
    Format,
    Labelling,
    Source,
    as_images,
    check_count,
    check_labels,
    check_one_size,
    check_pixels,
    check_shape,
    joined,
    make_source,
)

_UINT8 = 0x08  # the format's type code of unsigned bytes
_GZIP = b"\x1f\x8b"
_PIECE = 1 << 20


def read_idx_dataset(dataset: IdxDataset) -> Source:
    """Read training images and labels, and the test ones where they are given. Raises DataError."""
    pairs = _pairs(dataset)
    parts = [as_images(shown(images), read_idx(images, 3)) for images, _ in pairs]
    labelling = read_idx_labels(dataset)
    names = " and ".join(Path(images).name for images, _ in pairs)
    description = f"Images of the idx files {names}."
    return make_source(dataset.name, joined(parts), labelling, description, content_digest(dataset.files()))


def read_idx_labels(dataset: IdxDataset) -> Labelling:
    """Read the labels; of the images the header, against the size of the file, and the first few. Raises DataError."""
    pairs = _pairs(dataset)
    labels = [read_idx(path, 1) for _, path in pairs]
    shapes = {shown(images): idx_shape(images, 3) for images, _ in pairs}
    if dataset.fit == "one_size":
        check_one_size(dataset.name, shapes)
    for (images, _), part in zip(pairs, labels, strict=True):
        shape = shapes[shown(images)]
        check_count(shown(images), shape[0], len(part))
        check_shape(shown(images), np.dtype(np.uint8), shape)
        check_pixels(shown(images), _images(images, shape))
    is_test = np.repeat(np.arange(len(labels)) == 1, [len(part) for part in labels]) if len(labels) > 1 else None
    return check_labels(" and ".join(shown(path) for _, path in pairs), np.concatenate(labels), is_test=is_test)


def _pairs(dataset: IdxDataset) -> list[tuple[str, str]]:
    if (dataset.test_images is None) != (dataset.test_labels is None):
        raise DataError(f"{dataset.name}: expected test_images and test_labels together, found one of them. Give both.")
    pairs = [(dataset.images, dataset.labels)]
    if dataset.test_images is not None and dataset.test_labels is not None:
        if Path(local(dataset.images)).resolve() == Path(local(dataset.test_images)).resolve():
            raise DataError(
                f"{dataset.name}: expected test images of their own, found the training images, "
                f"{shown(dataset.images)}. Name another file as test_images."
            )
        pairs.append((dataset.test_images, dataset.test_labels))
    return pairs


def read_idx(path: str, dims: int) -> UInt8[np.ndarray, "..."]:
    """Read an idx file of unsigned bytes with `dims` dimensions.

    Raises DataError when it is absent, not such a file, or longer or shorter than its header says.
    """
    with _open(path) as file:
        shape = _header(path, file, dims)
        expected = math.prod(shape)
        _check_packing(path, expected)
        content, damage = _rest(file, expected)
    if damage or len(content) != expected:
        found = f"{len(content)}{damage}" if len(content) <= expected else "more"
        raise DataError(
            f"{shown(path)}: expected {expected} bytes after the header ({' × '.join(map(str, shape))}), found "
            f"{found}. The file is truncated or damaged: fetch it again."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def idx_shape(path: str, dims: int) -> tuple[int, ...]:
    """The shape that the header declares, checked against the length of the file without unpacking it.

    A gzip file ends with the length of what it holds, modulo 2³²; where that disagrees, the file is read.
    Raises DataError as `read_idx` does.
    """
    with _open(path) as file:
        shape = _header(path, file, dims)
    expected = 4 + 4 * dims + math.prod(shape)
    with open(local(path), "rb") as raw:
        if raw.read(2) == _GZIP:
            raw.seek(-4, 2)
            agrees = int.from_bytes(raw.read(4), "little") == expected % 2**32
        else:
            agrees = raw.seek(0, 2) == expected
    return shape if agrees else read_idx(path, dims).shape


def _open(path: str) -> io.BufferedIOBase:
    if (kind := kind_of(path)) not in ("a file", "none"):
        raise DataError(f"{shown(path)}: expected an idx file, found {kind}. Check the path.")
    try:
        with open(local(path), "rb") as file:
            packed = file.read(2) == _GZIP
    except OSError as error:
        raise DataError(
            f"{shown(path)}: expected an idx file, cannot read it: {error.strerror}. Check the path."
        ) from None
    return gzip.open(local(path), "rb") if packed else open(local(path), "rb")


def _images(path: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The images one after the other, as far as they can be read."""
    with _open(path) as file:
        _header(path, file, len(shape))
        for _ in range(shape[0]):
            try:
                content = file.read(math.prod(shape[1:]))
            except (EOFError, OSError, zlib.error):
                content = b""
            if len(content) < math.prod(shape[1:]):
                read_idx(path, len(shape))  # says where it is cut
                return
            yield np.frombuffer(content, np.uint8).reshape(shape[1:])


def _header(path: str, file: io.BufferedIOBase, dims: int) -> tuple[int, ...]:
    length = 4 + 4 * dims
    try:
        header = file.read(length)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            f"{shown(path)}: expected a header of {length} bytes, found a damaged file: {error}. Fetch it again."
        ) from None
    magic = bytes([0, 0, _UINT8, dims])
    if len(header) < length or header[:4] != magic:
        kind = "images" if dims == 3 else "labels"
        if header[:3] == magic[:3]:
            advice = "Check that images and labels are not swapped, and that the file is whole."
        else:
            advice = f"That is {starting(header)}, or the start of the file is lost. Check the path, or fetch it again."
        raise DataError(
            f"{shown(path)}: expected idx {kind} (magic number 0x{magic.hex()} and {dims} sizes), found "
            f"{len(header)} bytes starting with 0x{header[:4].hex()}. {advice}"
        )
    return tuple(np.frombuffer(header, ">u4", offset=4).tolist())


def _check_packing(path: str, expected: int) -> None:
    """Raise DataError where a small file would fill the memory with what no images are."""
    packed = Path(local(path)).stat().st_size
    if expected > BOMB and expected > RATIO * packed:
        raise DataError(
            f"{shown(path)}: expected images, found a header that asks for {expected} bytes in a file of {packed}, "
            "which no images are packed to. Fetch it again."
        )


def _rest(file: io.BufferedIOBase, expected: int) -> tuple[bytes, str]:
    """What can be read, up to one byte more than expected, and what then went wrong: the length says where."""
    content = bytearray()
    try:
        while len(content) <= expected and (piece := file.read1(min(_PIECE, expected + 1 - len(content)))):
            content += piece
    except (EOFError, OSError, zlib.error) as error:
        return bytes(content), f", then damage: {error}"
    return bytes(content), ""


IDX = Format(read_idx_dataset, read_idx_labels)
