"""What every source gives: raw images and labels that were checked, so that all later stages may trust them."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, UInt8

from cem import CemError
from cem.data.sources.advice import image_advice, label_advice

_DARKEST, _LOOKED_AT = 31, 1000  # of images whose brightest value is no brighter, so many are looked at
SMALLEST_SIDE, LARGEST_ASPECT = 8, 8  # pixels, and in parts of the shorter side: beyond, an array is no picture
Raw = UInt8[np.ndarray, "_ _"] | UInt8[np.ndarray, "_ _ 3"]  # height, width, colour


class DataError(CemError):
    """Raw data that is absent, damaged, or does not fit together."""


@runtime_checkable
class Pixels(Protocol):
    """Raw images, of one size or of several: an array, or what reads one when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, row: int, /) -> Raw: ...


class Joined:
    """The images of several arrays, one after the other, without a copy of them all."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts, self.ends = parts, np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, row: int, /) -> Raw:
        part = int(np.searchsorted(self.ends, row, side="right"))
        image: Raw = self.parts[part][row - self.ends[part]]  # counted from the part's end
        return image


def joined(parts: Sequence[np.ndarray]) -> "np.ndarray | Joined":
    """The images of all arrays, one after the other."""
    return parts[0] if len(parts) == 1 else Joined(parts)


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """The labels of a source: what can be known without reading its images.

    given: rows of each split, where the source is divided already; None: the settings say how it is. notes: sentences
    on what was left out or decided, for `cem validate`, the log and the report.
    """

    labels: Int[np.ndarray, " n"]  # 0 to len(class_names) − 1
    is_test: Bool[np.ndarray, " n"] | None  # the source's own test part; None: it has none
    is_val: Bool[np.ndarray, " n"] | None = None  # its own val part
    class_names: tuple[str, ...]
    given: Mapping[str, Int[np.ndarray, " _"]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source(Labelling):
    """Raw images with their labels, as they come.

    digest: gives `sha256`. remarks: gives further notes. Both cost the least, or know all, once the images were read.
    """

    images: Pixels
    description: str  # one sentence, for the report
    digest: Callable[[], str]
    remarks: Callable[[], list[str]] = field(default=list)

    @cached_property
    def sha256(self) -> str:
        """Of the raw content: `content_digest` of its files or, without files, the arrays'."""
        return self.digest()


@dataclass(frozen=True)
class Format:
    """How a member of the family is read: its implementation. Both are called with the member's settings.

    read: gives the images and labels. read_labels: what can be known in a moment and without torch: the labels, and
    whether the files look whole; None where they may still have to be downloaded. Both raise DataError, saying what was
    expected, what came and what to do, when the data is absent, damaged, or does not fit together.
    """

    read: Callable[[Any], Source]
    read_labels: Callable[[Any], Labelling | None]


def check_labels(
    where: str,
    labels: np.ndarray,
    *,
    is_test: np.ndarray | None = None,
    is_val: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Labelling:
    """Labels that fit together.

    where: what errors call the source. is_test, is_val: which images are the source's own test and val parts.
    class_names: one for each class; absent: the classes are 0 to the largest label.

    Raises DataError when the labels are not whole numbers, are outside the range of the classes, or leave a class
    without images, when two classes have one name, and when `is_test` has another length or puts all images on one
    side.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # as MedMNIST and Keras store them
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: expected labels as integers [n], found {labels.dtype} {list(labels.shape)}. "
            f"Store one whole number for each image. {label_advice(labels)}"
        )
    if len(labels) == 0:
        raise DataError(f"{where}: expected images, found none.")
    labels = labels.astype(np.int64)
    # A label beyond the number of images leaves some class empty, whatever it means: no list of names is made for it.
    largest = len(labels) - 1 if class_names is None else len(class_names) - 1
    if labels.min() < 0 or labels.max() > largest:
        raise DataError(
            f"{where}: expected labels from 0 to at most {largest}, found {labels.min()} to {labels.max()}. "
            "Number the classes from 0, and name each one where names are given."
        )
    names = tuple(class_names) if class_names is not None else tuple(map(str, range(int(labels.max()) + 1)))
    if len(names) < 2:
        raise DataError(f"{where}: expected at least 2 classes, found {len(names)}.")
    doubled = sorted(name for name, count in Counter(names).items() if count > 1)
    if doubled:
        raise DataError(
            f"{where}: expected a name of its own for each class, found {', '.join(map(repr, doubled))} more than once."
            " Rename one, or give the images of both one label."
        )
    _check_classes(where, np.bincount(labels, minlength=len(names)), names)
    for part, marks in (("test", is_test), ("val", is_val)):
        if marks is not None:
            _check_marks(where, part, marks, len(labels))
    return Labelling(labels=labels, is_test=is_test, is_val=is_val, class_names=names, notes=tuple(notes))


def _check_classes(where: str, counts: Int[np.ndarray, " class"], names: tuple[str, ...]) -> None:
    empty = [names[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise DataError(
            f"{where}: expected images of all {len(names)} classes, found none of {shown}. "
            "Add images, or leave the class out and number the others from 0."
        )


def _check_marks(where: str, part: str, marks: np.ndarray, count: int) -> None:
    if marks.dtype != np.bool_ or marks.shape != (count,):
        raise DataError(
            f"{where}: expected the marks of training images as bool [{count}], one for each image, found "
            f"{marks.dtype} {list(marks.shape)}."
        )
    if marks.all() or not marks.any():
        only = part if marks.all() else "training"
        raise DataError(
            f"{where}: expected training and {part} images, but all {count} are marked as {only} images. "
            f"Leave the marks out to have a {part} split drawn from all images."
        )


def check_count(where: str, images: int, labels: int) -> None:
    """Raise DataError unless there are as many labels as images."""
    if images != labels:
        raise DataError(
            f"{where}: expected as many labels as images, found {images} images and {labels} labels. "
            "Make the two from the same list."
        )


def check_shape(where: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Raise DataError unless dtype and shape are those of images: uint8 [n, h, w], [n, h, w, 1] or [n, h, w, 3]."""
    grey, colour = len(shape) == 3, len(shape) == 4 and shape[3] in (1, 3)
    if dtype != np.uint8 or not (grey or colour) or min(shape[1:3], default=0) < 1:
        raise DataError(
            f"{where}: expected images as uint8 [n, height, width] or [n, height, width, 3], found {dtype} "
            f"{list(shape)}. Values run from 0 to 255, channels come last.{image_advice(dtype, shape, SMALLEST_SIDE)}"
        )
    if not is_picture(shape[1], shape[2]):
        raise DataError(
            f"{where}: expected pictures, at least {SMALLEST_SIDE} pixels a side and at most {LARGEST_ASPECT} times as "
            f"long as wide, found {list(shape)}: images of {shape[1]}×{shape[2]}."
            f"{image_advice(dtype, shape, SMALLEST_SIDE)}"
        )


def is_picture(height: int, width: int) -> bool:
    """Whether a picture may have these sides."""
    short, long = sorted((height, width))
    return short >= SMALLEST_SIDE and long <= LARGEST_ASPECT * short


def check_pixels(where: str, images: Iterable[np.ndarray]) -> None:
    """Raise DataError when no value is above 1, none of the first images' above 31, or all images are equal.

    Stops at the image that shows otherwise.
    """
    first, largest, differ = None, 0, False
    for number, image in enumerate(images):
        first = image if first is None else first
        largest = max(largest, int(image.max()))
        differ = differ or not np.array_equal(image, first)
        if differ and (largest > _DARKEST or (largest > 1 and number >= _LOOKED_AT)):
            break
    if largest <= 1:
        raise DataError(
            f"{where}: expected values from 0 to 255, but all are 0 or 1. If they run from 0 to 1, multiply them by "
            "255 before they become uint8; black images hold nothing to rebuild."
        )
    if differ and largest <= _DARKEST:
        raise DataError(
            f"{where}: expected values from 0 to 255, but the largest is {largest}. Other scales (0 to 16, classes of "
            "a mask) must be rescaled first: 255 is white."
        )
    if differ:
        return
    raise DataError(f"{where}: expected images that differ, but all are equal. Check how the data was made.")


def several_sizes(found: dict[tuple[int, int], str]) -> str:
    """What is wrong and what to do, of two images: size (width, height) → what the image is called."""
    said = " and ".join(f"{name} with {width}×{height}" for (width, height), name in found.items())
    return (
        f"expected images of one size, found {said} pixels. Say how they become square: "
        "fit: crop (the middle), pad (with black) or stretch; or crop them first."
    )


def check_one_size(where: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise DataError when arrays of images, name → shape, have images of several sizes."""
    found = {(shape[2], shape[1]): name for name, shape in shapes.items()}
    if len(found) > 1:
        raise DataError(f"{where}: {several_sizes(found)}")


def as_images(where: str, array: np.ndarray) -> np.ndarray:
    """An array as uint8 [n, h, w] or [n, h, w, 3]. Raises DataError when it is none, or nothing is to be seen in it."""
    check_shape(where, array.dtype, array.shape)
    images = array[..., 0] if array.shape[3:] == (1,) else array
    check_pixels(where, images)
    return images


def make_source(
    where: str,
    images: np.ndarray | Pixels,
    labelling: Labelling,
    description: str,
    sha256: str | Callable[[], str],
    remarks: Callable[[], list[str]] = list,
) -> Source:
    """A source of images that fit their labels. Raises DataError when they are no images, or more or fewer.

    sha256: of the raw content, or what gives it once the images were read.
    """
    if isinstance(images, np.ndarray):
        images = as_images(where, images)
    check_count(where, len(images), len(labelling.labels))
    known = {
        name: getattr(labelling, name) for name in ("labels", "is_test", "is_val", "class_names", "given", "notes")
    }
    digest = sha256 if callable(sha256) else lambda: sha256
    return Source(images=images, description=description, digest=digest, remarks=remarks, **known)
