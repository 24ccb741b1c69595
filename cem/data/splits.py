"""Dividing images into private, val, shadow and test: stratified, seeded, disjoint."""

from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Int

from cem.config import Split
from cem.data.sources import DataError

Rows = Int[np.ndarray, " _"]  # of any length
_TEST_FRACTION = 0.2  # of everything, where the source has no test part of its own


def split_indices(
    labels: Int[np.ndarray, " n"], is_test: Bool[np.ndarray, " n"] | None, split: Split, where: str = "data set"
) -> dict[str, Rows]:
    """Rows of the images in each split, shuffled, from the split's seed alone.

    labels: classes 0, 1, …, each with images. is_test: the source's own test part. where: what errors call the data.
    The totals are exactly what `split` asks for (fractions rounded down), shared among the classes in proportion to
    what is left of each, by largest remainder.

    Raises DataError when there are fewer images than the splits need, or a class is missing from a split.
    """
    shuffled = np.random.default_rng(split.seed).permutation(len(labels))
    if is_test is None:
        test, rest = _take(shuffled, labels, "test", split.test or _TEST_FRACTION, len(labels), where)
    else:
        pool, rest = shuffled[is_test[shuffled]], shuffled[~is_test[shuffled]]
        test, _ = _take(pool, labels, "test", split.test or len(pool), len(pool), where)
    whole = len(rest)
    val, rest = _take(rest, labels, "val", split.val, whole, where)
    shadow, rest = _take(rest, labels, "shadow", split.shadow, whole, where)
    private, _ = _take(rest, labels, "private", split.private or len(rest), whole, where)
    return {"private": private, "val": val, "shadow": shadow, "test": test}


def _take(
    rows: Rows, labels: Int[np.ndarray, " n"], name: str, amount: int | float, whole: int, where: str
) -> tuple[Rows, Rows]:
    """Rows for a split and the rows that remain, both in the order of `rows`. amount: a count, or a part of whole."""
    total = amount if isinstance(amount, int) else int(Fraction(str(amount)) * whole)  # str: 0.29 of 100 is 29, not 28
    classes = int(labels.max()) + 1
    available = np.bincount(labels[rows], minlength=classes)
    if total > len(rows):
        raise DataError(
            f"{where}: split {name!r} needs {total} images, but only {len(rows)} of {whole} are left for it "
            f"({available.min()} to {available.max()} for each class). Make the splits smaller or add images."
        )
    share = _largest_remainder(available, total)
    if share.min() < 1:
        missing = int(share.argmin())
        raise DataError(
            f"{where}: split {name!r} has {total} images for {classes} classes and gets none of class {missing}, "
            f"which has {available[missing]} of the {len(rows)} images left for it. Every split needs at least one "
            "image of every class: make this split larger, the others smaller, or add images."
        )
    chosen = _rank_in_class(labels[rows]) < share[labels[rows]]
    return rows[chosen], rows[~chosen]


def _largest_remainder(available: Int[np.ndarray, " class"], total: int) -> Int[np.ndarray, " class"]:
    """`total` shared in proportion to `available`, in whole numbers (Hamilton's method). Never more than available."""
    share, remainder = np.divmod(available * total, max(available.sum(), 1))
    share[np.argsort(-remainder, kind="stable")[: total - share.sum()]] += 1
    return share


def _rank_in_class(labels: Rows) -> Rows:
    """For each row how many rows of its class come before it."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rank
