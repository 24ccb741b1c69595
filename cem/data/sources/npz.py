"""NumPy's npz: `x` and `y`, and where they are given `train` and `classes`; or the parts of MedMNIST and Keras."""

import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib import format as npy

from cem.config import NpzDataset
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

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LAYOUTS = ("{}_images", "{}_labels"), ("x_{}", "y_{}")  # of MedMNIST and of Keras
_PARTS = ("train", "val", "test")


# What zipfile, zlib and NumPy raise at damage; a RuntimeError where a member is encrypted.
DAMAGE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, OSError, EOFError, ValueError, KeyError, IndexError,
    NotImplementedError, RuntimeError, OverflowError, MemoryError, SyntaxError, TypeError, tokenize.TokenError,
)  # fmt: skip


class Header(NamedTuple):
    """What is known of an array before it is read."""

    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    length: int  # of the header, in bytes


def read_npz(dataset: NpzDataset) -> Source:
    """Read an npz file. Raises DataError when it is absent, damaged, or does not hold what it should."""
    labelling = read_npz_labels(dataset)
    where = shown(dataset.path)
    with _archive(dataset.path) as archive:
        parts = [as_images(where, _array(where, archive, images)) for images, _ in _pairs(where, archive).values()]
    description = f"Images of the file {Path(where).name}."
    return make_source(where, joined(parts), labelling, description, content_digest(dataset.files()))


def read_npz_labels(dataset: NpzDataset) -> Labelling:
    """Read the labels; of the images dtype, shape and the first few. Raises DataError as `read_npz` does."""
    where = shown(dataset.path)
    with _archive(dataset.path) as archive:
        pairs = _pairs(where, archive)
        labels = {part: np.atleast_1d(_array(where, archive, name)) for part, (_, name) in pairs.items()}
        train = _array(where, archive, "train") if "train.npy" in archive.namelist() else None
        classes = _array(where, archive, "classes") if "classes.npy" in archive.namelist() else None
        shapes = {name: _check_images(where, archive, name, labels[part]) for part, (name, _) in pairs.items()}
    if dataset.fit == "one_size":
        check_one_size(where, shapes)
    if len({part.shape[1:] for part in labels.values()}) > 1:
        raise DataError(f"{where}: expected labels of one shape in all parts, found several. Save them anew.")
    which = np.repeat(list(pairs), [len(part) for part in labels.values()])
    is_test = which == "test" if "test" in pairs else None
    if train is not None:
        is_test = ~train if train.dtype == np.bool_ else train
    return check_labels(
        where,
        np.concatenate(list(labels.values())),
        is_test=is_test,
        is_val=which == "val" if "val" in pairs else None,
        class_names=None if classes is None else _names(where, classes),
    )


def _pairs(where: str, archive: zipfile.ZipFile) -> dict[str, tuple[str, str]]:
    """Part → names of its images and labels; a file without parts has one, `all`."""
    names = [name.removesuffix(".npy") for name in archive.namelist()]
    if "x" in names and "y" in names:
        if unread := [name for name in names if name not in ("x", "y", "train", "classes")]:
            raise DataError(
                f"{where}: expected x (images), y (labels), and at most train and classes beside them; found also "
                f"{', '.join(unread)}, which would not be read. Leave them out; test images of their own go into "
                "x_train, y_train, x_test and y_test."
            )
        return {"all": ("x", "y")}
    for images, labels in _LAYOUTS:
        pairs = {part: (images.format(part), labels.format(part)) for part in _PARTS}
        found = {part: pair for part, pair in pairs.items() if set(pair) & set(names)}
        absent = [name for pair in found.values() for name in pair if name not in names]
        if "train" in found and not absent:
            own = {"classes", *(name for pair in found.values() for name in pair)}
            if unread := [name for name in names if name not in own]:
                raise DataError(
                    f"{where}: expected {', '.join(sorted(own))} and no more, found also {', '.join(unread)}, which "
                    f"would not be read. Leave them out; the parts are {', '.join(_PARTS)}."
                )
            return found
        if found:
            lacking = absent or pairs["train"]
            raise DataError(
                f"{where}: expected images and labels of every part, and a training part; found "
                f"{', '.join(names)}, but no {' and no '.join(lacking)}. Add them, or leave the part out."
            )
    raise DataError(
        f"{where}: expected arrays x (images) and y (labels), found {', '.join(names) or 'none'}. "
        "Save it with numpy.savez(path, x=images, y=labels)."
    )


@contextmanager
def _archive(path: str) -> Iterator[zipfile.ZipFile]:
    where = shown(path)
    if (found := kind_of(path)) != "a file":
        raise DataError(f"{where}: expected an npz file, found {found}. Check the path.")
    try:
        with zipfile.ZipFile(local(path)) as archive:
            _check_start(where, archive)
            yield archive
    except PermissionError as error:
        raise DataError(f"{where}: expected an npz file, cannot read it: {error.strerror}. Allow that.") from None
    except DAMAGE as error:
        found = f"a damaged one: {error}" if zipfile.is_zipfile(local(path)) else _instead(path)
        raise DataError(
            f"{where}: expected an npz file (a zip of arrays), found {found}. It is truncated, damaged or was not "
            "saved with numpy.savez: make or fetch it again."
        ) from None


def _instead(path: str) -> str:
    """What a file is that does not end as a zip does."""
    with open(local(path), "rb") as file:
        start = file.read(8)
    return "one whose end is lost" if start.startswith(b"PK") else starting(start)


def _check_start(where: str, archive: zipfile.ZipFile) -> None:
    """Raise DataError where the directory at the file's end speaks of more bytes than stand before it."""
    lost = -min((info.header_offset for info in archive.infolist()), default=0)
    if lost > 0:
        raise DataError(
            f"{where}: expected a whole npz file, cannot read it: {lost} bytes of its start or middle are lost. "
            "Make or fetch it again."
        )


@contextmanager
def _member(where: str, archive: zipfile.ZipFile, name: str) -> Iterator[tuple[Header, zipfile.ZipExtFile]]:
    """An array's header and, behind it, its bytes. What the readers raise at damage becomes a DataError."""
    try:
        with archive.open(f"{name}.npy") as member:
            assert isinstance(member, zipfile.ZipExtFile)
            version = npy.read_magic(member)
            if version not in _HEADERS:
                raise ValueError(f"format {version} is not known")
            shape, fortran, dtype = _HEADERS[version](member)
            yield Header(dtype, tuple(shape), fortran, member.tell()), member
    except DAMAGE as error:
        raise DataError(
            f"{where}: expected an array of numbers or text as {name!r}, cannot read it: {error}. The file is "
            "damaged: make or fetch it again."
        ) from None


def _check_bytes(where: str, info: zipfile.ZipInfo, header: Header) -> int:
    """How many bytes the array has. Raises DataError for objects, ValueError where others follow its header."""
    if header.dtype.hasobject:
        raise DataError(
            f"{where}: expected an array of numbers or text as {info.filename.removesuffix('.npy')!r}, found an object "
            "array, which is not loaded. Make text of names with .astype(str), bytes or whole numbers of numbers with "
            ".astype(numpy.uint8) or .astype(numpy.int64). NumPy makes one of lists of unequal length, too: give all "
            "one length."
        )
    expected, behind = math.prod(header.shape) * header.dtype.itemsize, info.file_size - header.length
    if expected != behind:
        raise ValueError(f"{list(header.shape)} of {header.dtype} take {expected} bytes, but {behind} follow")
    if expected > BOMB and info.file_size > RATIO * info.compress_size:
        raise ValueError(f"{info.compress_size} bytes unpack to {info.file_size}")
    return expected


def _array(where: str, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with _member(where, archive, name) as (header, member):
        expected = _check_bytes(where, archive.getinfo(f"{name}.npy"), header)
        content = member.read() if expected else b""  # to its end, where zipfile compares the checksum
        flat = np.frombuffer(content, header.dtype, count=math.prod(header.shape))
        return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _check_images(where: str, archive: zipfile.ZipFile, name: str, labels: np.ndarray) -> tuple[int, ...]:
    """Dtype, shape and number of images from the header alone, as they may be large; then as many as show something.

    Gives the shape.
    """
    with _member(where, archive, name) as (header, member):
        check_shape(where, header.dtype, header.shape)
        check_count(where, header.shape[0], len(labels))
        _check_bytes(where, archive.getinfo(f"{name}.npy"), header)
        if not header.fortran and len(labels):
            check_pixels(where, _rows(header, member))
    if header.fortran and len(labels):
        check_pixels(where, _array(where, archive, name))
    return header.shape


def _rows(header: Header, member: zipfile.ZipExtFile) -> Iterator[np.ndarray]:
    size = math.prod(header.shape[1:])
    for _ in range(header.shape[0]):
        yield np.frombuffer(member.read(size), np.uint8).reshape(header.shape[1:])


def _names(where: str, classes: np.ndarray) -> list[str]:
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise DataError(
            f"{where}: expected classes as text, one name for each class, found {classes.dtype} {list(classes.shape)}."
        )
    try:
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in classes.tolist()]
        "".join(names).encode()  # halves of characters, which Python makes of names of files that are no UTF-8
        return names
    except UnicodeError:
        raise DataError(
            f"{where}: expected the names of classes as text or as bytes in UTF-8, found others. Save them as text."
        ) from None


NPZ = Format(read_npz, read_npz_labels)
