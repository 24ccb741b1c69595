"""Dividing images into private, val, shadow and test: stratified, seeded, disjoint."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from cem.config import Split
from cem.config.dataset import Amount
from cem.data.sources import DataError, Labelling

Rows = Int[np.ndarray, " _"]  # of any length
_TEST_FRACTION = 0.2  # of everything, where the source has no test part of its own
_VAL_FRACTION = Split().val  # of what is left then, where it has no val part


def split_indices(known: Labelling, split: Split, where: str = "data set", advice: str = "") -> dict[str, Rows]:
    """Rows of the images in each split, shuffled, from the split's seed alone.

    where: what errors call the data. advice: what else to do about classes with few images.
    The totals are exactly what `split` asks for (fractions rounded down), shared among the classes in proportion to
    what is left of each, by largest remainder.

    Raises DataError when there are fewer images than the splits need, or a class is missing from a split.
    """
    rest = np.random.default_rng(split.seed).permutation(len(known.labels))
    own: dict[str, Rows] = {}
    for name, marks in (("test", known.is_test), ("val", known.is_val)):
        if marks is not None:
            own[name], rest = rest[marks[rest]], rest[~marks[rest]]
    pools = _Pools(known, where, advice)

    def part(name: str, amount: Amount | None, otherwise: float) -> tuple[Rows, Rows]:
        if (pool := own.get(name)) is None:
            return pools.take(rest, name, amount or otherwise, len(rest))
        return pools.take(pool, name, amount or len(pool), len(pool))[0], rest

    test, rest = part("test", split.test, _TEST_FRACTION)
    whole = len(rest)
    val_amount = None if split.val == _VAL_FRACTION else split.val
    val, rest = part("val", val_amount, _VAL_FRACTION)
    shadow, rest = pools.take(rest, "shadow", split.shadow, whole)
    private, _ = pools.take(rest, "private", split.private or len(rest), whole)
    return {"private": private, "val": val, "shadow": shadow, "test": test}


@dataclass(frozen=True)
class _Pools:
    """Takes rows of images for one split after the other, stratified by class."""

    known: Labelling
    where: str
    advice: str

    def take(self, rows: Rows, name: str, amount: int | float, whole: int) -> tuple[Rows, Rows]:
        """Rows for a split and the rows that remain, both in the order of `rows`. amount: a count, or part of whole."""
        total = amount if isinstance(amount, int) else int(Fraction(str(amount)) * whole)  # 0.29 of 100 is 29, not 28
        labels, names = self.known.labels[rows], self.known.class_names
        available = np.bincount(labels, minlength=len(names))
        if total > len(rows):
            raise DataError(
                f"{self.where}: split {name!r} needs {total} images, but only {len(rows)} of {whole} are left for it "
                f"({available.min()} to {available.max()} for each class). Make the splits smaller or add images."
            )
        share = _largest_remainder(available, total)
        if share.min() < 1:
            missing = int(share.argmin())
            raise DataError(
                f"{self.where}: split {name!r} has {total} images for {len(names)} classes and gets none of class "
                f"{names[missing]!r}, which has {available[missing]} of the {len(rows)} images left for it. Every "
                "split needs at least one image of every class: make this split larger, the others smaller, or add "
                f"images.{self.advice and ' '}{self.advice}"
            )
        chosen = _rank_in_class(labels) < share[labels]
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
