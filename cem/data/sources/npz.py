"""NumPy's npz: `x` and `y`, and where they are given `train` and `classes`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from cem.config import NpzDataset
from cem.data.sources.source import (
    DataError,
    Format,
    Labelling,
    Source,
    check_count,
    check_labels,
    check_shape,
    make_source,
)
from cem.storage.files import sha256

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(dataset: NpzDataset) -> Source:
    """Read an npz file. Raises DataError when it is absent, damaged, or does not hold what it should."""
    labelling = read_npz_labels(dataset)
    with _open(dataset.path) as file:
        images = _array(dataset.path, file, "x")
    description = f"Images of the file {Path(dataset.path).name}."
    return make_source(dataset.path, images, labelling, description, sha256(dataset.path))


def read_npz_labels(dataset: NpzDataset) -> Labelling:
    """Read the labels; of the images only dtype and shape. Raises DataError as `read_npz` does."""
    with _open(dataset.path) as file:
        for name in ("x", "y"):
            if name not in file.files:
                raise DataError(
                    f"{dataset.path}: expected arrays x (images) and y (labels), found {', '.join(file.files)}. "
                    "Save it with numpy.savez(path, x=images, y=labels)."
                )
        labels = _array(dataset.path, file, "y")
        train = _array(dataset.path, file, "train") if "train" in file.files else None
        classes = _array(dataset.path, file, "classes") if "classes" in file.files else None
    check_count(dataset.path, _shape(dataset.path)[0], len(labels))
    return check_labels(
        dataset.path,
        labels,
        is_test=None if train is None else ~train if train.dtype == np.bool_ else train,
        class_names=None if classes is None else _names(dataset.path, classes),
    )


def _open(path: str) -> np.lib.npyio.NpzFile:
    if not Path(path).is_file():
        raise DataError(f"{path}: expected an npz file, found none. Check the path.")
    if not zipfile.is_zipfile(path):
        raise DataError(
            f"{path}: expected an npz file (a zip of arrays), found something else. It is truncated or was not saved "
            "with numpy.savez: make or fetch it again."
        )
    file = np.load(path, allow_pickle=False)
    assert isinstance(file, np.lib.npyio.NpzFile)
    return file


def _array(path: str, file: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
    try:
        return np.asarray(file[name])
    except (ValueError, OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: expected an array of numbers or text as {name!r}, cannot read it: {error}. Lists of unequal "
            "length become object arrays, which are not loaded; a damaged file must be fetched again."
        ) from None


def _shape(path: str) -> tuple[int, ...]:
    """The shape of `x`, from its header alone: images may be large, and a plan needs only the labels."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("x.npy") as member:
            shape, _, dtype = _HEADERS[npy.read_magic(member)](member)
    except (KeyError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: expected an array as 'x', cannot read its header: {error}.") from None
    check_shape(path, dtype, shape)
    return tuple(shape)


def _names(path: str, classes: np.ndarray) -> list[str]:
    if classes.ndim != 1 or classes.dtype.kind not in "USiu":
        raise DataError(
            f"{path}: expected classes as text, one name for each class, found {classes.dtype} {list(classes.shape)}."
        )
    return [str(name) for name in classes.astype(str)]


NPZ = Format(read_npz, read_npz_labels)
