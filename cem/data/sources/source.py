"""What every source gives: raw images and labels that were checked, so that all later stages may trust them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from cem import CemError


class DataError(CemError):
    """Raw data that is absent, damaged, or does not fit together."""


@dataclass(frozen=True)
class Labelling:
    """The labels of a source: what can be known without reading its images."""

    labels: Int[np.ndarray, " n"]  # 0 to len(class_names) − 1
    is_test: Bool[np.ndarray, " n"] | None  # the source's own test part; None: it has none
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Source(Labelling):
    """Raw images with their labels, as they come."""

    images: UInt8[np.ndarray, "n height width"] | UInt8[np.ndarray, "n height width 3"]
    description: str  # one sentence, for the report
    sha256: str  # of the raw content: the files' bytes or, where there are none, the arrays'


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
    class_names: Sequence[str] | None = None,
) -> Labelling:
    """Labels that fit together.

    where: what errors call the source. is_test: which images are the source's own test part. class_names: one for each
    class; absent: the classes are 0 to the largest label.

    Raises DataError when the labels are not whole numbers, are outside the range of the classes, or leave a class
    without images, when two classes have one name, and when `is_test` has another length or puts all images on one
    side.
    """
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{where}: expected labels as integers [n], found {labels.dtype} {list(labels.shape)}. "
            "Store one whole number for each image."
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
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise DataError(
            f"{where}: expected a name of its own for each class, found {', '.join(map(repr, doubled))} more than once."
            " Rename one, or give the images of both one label."
        )
    _check_classes(where, np.bincount(labels, minlength=len(names)), names)
    if is_test is not None:
        _check_is_test(where, is_test, len(labels))
    return Labelling(labels, is_test, names)


def _check_classes(where: str, counts: Int[np.ndarray, " class"], names: tuple[str, ...]) -> None:
    empty = [names[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        shown = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        raise DataError(
            f"{where}: expected images of all {len(names)} classes, found none of {shown}. "
            "Add images, or leave the class out and number the others from 0."
        )


def _check_is_test(where: str, is_test: np.ndarray, count: int) -> None:
    if is_test.dtype != np.bool_ or is_test.shape != (count,):
        raise DataError(
            f"{where}: expected the marks of training images as bool [{count}], one for each image, found "
            f"{is_test.dtype} {list(is_test.shape)}."
        )
    if is_test.all() or not is_test.any():
        only = "test" if is_test.all() else "training"
        raise DataError(
            f"{where}: expected training and test images, but all {count} are marked as {only} images. "
            "Leave the marks out to have a test split drawn from all images."
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
            f"{list(shape)}. Values run from 0 to 255, channels come last."
        )


def make_source(where: str, images: np.ndarray, labelling: Labelling, description: str, sha256: str) -> Source:
    """A source of images that fit their labels. Raises DataError when they are no images, or more or fewer."""
    check_shape(where, images.dtype, images.shape)
    check_count(where, len(images), len(labelling.labels))
    if images.ndim == 4 and images.shape[3] == 1:
        images = images[..., 0]
    return Source(
        labels=labelling.labels,
        is_test=labelling.is_test,
        class_names=labelling.class_names,
        images=images,
        description=description,
        sha256=sha256,
    )
