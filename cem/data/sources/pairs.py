"""Activations of the user's own: z, x and y of every split, in an npz or HDF5 file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from jaxtyping import Float, Float32

from cem.config import ActivationsDataset
from cem.data.sources.files import content_digest, kind_of, local, shown
from cem.data.sources.npz import DAMAGE
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
from cem.storage.hdf5 import SPLITS

WANTED = "z [n, channels, height, width] or [n, d], x uint8 images and y labels of each of " + ", ".join(SPLITS)


def read_pairs(dataset: ActivationsDataset) -> Source:
    """The images and labels.

    Raises DataError when the file is absent, damaged, or does not hold what it should: z that are not finite, too.
    """
    labelling, where = read_pair_labels(dataset), shown(dataset.path)
    with _opened(dataset) as file:
        for split in SPLITS:  # now, as nothing can be made of an image whose z is not a number
            _finite(where, split, np.asarray(_array(file, split, "z")))
        parts = [as_images(where, np.asarray(_array(file, split, "x"))) for split in SPLITS]
    return make_source(
        where,
        joined(parts),
        labelling,
        "Images beside activations that were made elsewhere.",
        content_digest(dataset.files()),
    )


def read_pair_labels(dataset: ActivationsDataset) -> Labelling:
    """The labels; of z and x the shapes. Raises DataError as `read_pairs` does."""
    where = shown(dataset.path)
    with _opened(dataset) as file:
        labels = {split: np.atleast_1d(np.asarray(_array(file, split, "y"))) for split in SPLITS}
        shapes = {}
        for split in SPLITS:
            if labels[split].shape[1:] == (1,):
                labels[split] = labels[split][:, 0]
            x, z = (_array(file, split, name) for name in "xz")
            check_shape(f"{where}, x of {split}", x.dtype, x.shape)
            check_count(f"{where}, {split}", len(x), len(labels[split]))
            check_count(f"{where}, z of {split}", len(z), len(labels[split]))
            if not np.issubdtype(z.dtype, np.floating):
                raise DataError(
                    f"{where}: expected z of {split} as floating-point numbers (float32), found {z.dtype}. Store what "
                    "the client sends, as z.astype('float32')."
                )
            if labels[split].ndim != 1:
                found = list(labels[split].shape)
                raise DataError(f"{where}: expected y of {split} as integers [n], found {found}. Use y.argmax(1).")
            if len(x) == 0:
                raise DataError(f"{where}: expected images of {split}, found none. Give each split some.")
            shapes[split] = x.shape
            check_pixels(f"{where}, x of {split}", (np.asarray(x[row]) for row in range(len(x))))
        _shape(where, {split: _array(file, split, "z").shape for split in SPLITS})
    if dataset.fit == "one_size":
        check_one_size(where, shapes)
    ends = np.cumsum([0, *(len(labels[split]) for split in SPLITS)])
    known = check_labels(where, np.concatenate(list(labels.values())))
    if missing := sorted(set(known.labels.tolist()) - set(labels["private"].tolist())):
        raise DataError(
            f"{where}: expected images of every class in private, found none of {', '.join(map(str, missing[:5]))}. "
            "Leave those classes out, or move some of their images."
        )
    given = {split: np.arange(ends[place], ends[place + 1]) for place, split in enumerate(SPLITS)}
    return Labelling(labels=known.labels, is_test=None, class_names=known.class_names, given=given)


def smashed_shape_of_pairs(dataset: ActivationsDataset) -> tuple[int, int, int]:
    """Channels, height, width of z; a vector is a map of 1×1."""
    with _opened(dataset) as file:
        return _shape(shown(dataset.path), {split: _array(file, split, "z").shape for split in SPLITS})


def read_smashed(dataset: ActivationsDataset, split: str) -> Float[np.ndarray, "n c h w"]:
    """z of a split, in the order of its images. Raises DataError for values that are not finite."""
    with _opened(dataset) as file:
        z = _finite(shown(dataset.path), split, np.asarray(_array(file, split, "z")))
    return z.reshape(*z.shape[:2], *(z.shape[2:] or (1, 1)))


def _finite(where: str, split: str, z: np.ndarray) -> Float32[np.ndarray, "*shape"]:
    """z as it is kept. Raises DataError for values that are not finite there."""
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        kept = z.astype(np.float32)
    wrong = z.size - int(np.isfinite(kept).sum())
    if wrong:
        raise DataError(
            f"{where}: expected z of {split} as finite numbers, found {wrong:,} of {z.size:,} that are not (NaN, "
            "infinite, or beyond float32). Leave those images out, or store what the client sends."
        )
    return kept


def _shape(where: str, shapes: dict[str, tuple[int, ...]]) -> tuple[int, int, int]:
    kinds = {shape[1:] for shape in shapes.values()}
    found = next(iter(kinds))
    if 0 in found or len(kinds) > 1 or len(found) not in (1, 3) or (len(found) == 3 and found[1] != found[2]):
        told = ", ".join(f"{split} {list(shape)}" for split, shape in shapes.items())
        raise DataError(
            f"{where}: expected z as [n, channels, side, side] or [n, d], alike in all splits; found {told}. Lay it "
            "out so."
        )
    channels, height, width = found if len(found) == 3 else (*found, 1, 1)
    return channels, height, width


def _array(file: Any, split: str, what: str) -> Any:
    """`private/z`, or `private_z` as keyword arguments of numpy.savez give it; of HDF5 without reading its values."""
    for name in (f"{split}/{what}", f"{split}_{what}"):
        if name in file:
            found = file[name]
            if isinstance(file, h5py.File):
                _check_stored(file, name, found)
            if not hasattr(found, "shape"):
                raise DataError(f"expected {name} as an array, found other bytes. Store {WANTED}.")
            if not found.shape:
                raise DataError(f"expected {name} as an array [n, …], found a single value. Store {WANTED}.")
            return found
    has = ", ".join(map(str, file)) or "nothing"
    raise DataError(f"expected {split}/{what} (or {split}_{what}), found {has[:200]}. Store {WANTED}.")


def _check_stored(file: h5py.File, name: str, found: Any) -> None:
    """Raise DataError for what is no array, or an array of another file: the digest of the data would not know it."""
    if not isinstance(found, h5py.Dataset):
        raise DataError(f"expected {name} as an array, found a {type(found).__name__.lower()}. Store {WANTED}.")
    if found.file.filename != file.filename or found.external or found.is_virtual:
        raise DataError(f"expected {name} in this file, found a link to another file. Store {WANTED}.")


@contextmanager
def _opened(dataset: ActivationsDataset) -> Iterator[Any]:
    """A mapping of names to arrays. Objects are never unpickled."""
    where, path = shown(dataset.path), local(dataset.path)
    if (kind := kind_of(path)) not in ("a file", "none"):
        raise DataError(f"{where}: expected an npz or HDF5 file, found {kind}. Correct dataset.path.")
    try:
        if path.lower().endswith(".npz"):
            file = np.load(path, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"expected an npz file, found a single array (.npy). Store {WANTED}.")
            with file:
                yield file
        else:
            with h5py.File(path, "r") as file:
                yield file
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(where) else f"{where}: {error}") from None
    except FileNotFoundError:
        raise DataError(f"{where}: expected an npz or HDF5 file, found none. Correct dataset.path.") from None
    except DAMAGE as error:
        raise DataError(f"{where}: cannot be read as npz or HDF5: {error}. Store {WANTED}.") from None


PAIRS = Format(read_pairs, read_pair_labels)
