"""Dividing images into private, val, shadow and test: stratified, seeded, disjoint; by image or by identity."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cem.config import DatasetSettings, Split
from cem.config.split import Amount
from cem.data.sources import DataError, Labelling

Rows = Int[np.ndarray, " _"]  # of any length
_TEST_FRACTION = 0.2  # of everything, where the source has no test part of its own
_VAL_FRACTION = Split().val  # of what is left then, where it has no val part
_FEWEST_CLASSES = 3  # by identity: one person for shadow, and two to tell apart
_FEWEST_IMAGES = 3  # of each person: one each for private, val and test


class Division(NamedTuple):
    """Rows of the images in each split, the label of each image, and what the classes are called.

    class_names: of private, val and test, whose labels are 0 to k − 1. shadow_class_names: of shadow, where its classes
    are others: its labels go on from k, so that nothing takes one for a class of the defender's. Empty: the same ones.
    """

    rows: dict[str, Rows]
    labels: Int[np.ndarray, " n"]
    class_names: tuple[str, ...]
    shadow_class_names: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """What the user should know of the division."""
        if not self.shadow_class_names:
            return []
        drawn, others = len(self.shadow_class_names), len(self.class_names)
        return [
            f"split by identity: shadow has {drawn} of the {drawn + others} classes, which no other split has; the "
            f"model tells the other {others} apart."
        ]

    def counts(self) -> dict[str, Int[np.ndarray, " class"]]:
        """How many images of each of its classes each split has."""
        labels = {split: self.labels[rows] for split, rows in self.rows.items()}
        return count_classes(labels, self.class_names, self.shadow_class_names)


def count_classes(
    labels: dict[str, Int[np.ndarray, " n"]], names: Sequence[str], shadow_names: Sequence[str]
) -> dict[str, Int[np.ndarray, " class"]]:
    """How many images of each of its classes each split has, from the labels of each."""
    found = {split: np.bincount(own, minlength=len(names)) for split, own in labels.items()}
    if shadow_names:
        found["shadow"] = found["shadow"][len(names) :]
    return found


def divide(known: Labelling, dataset: DatasetSettings) -> Division:
    """The images of a data set, divided as its settings say.

    Raises DataError when there are fewer images than the splits need, or a class is missing from a split; by identity,
    also when there are fewer than 3 persons, or fewer than 3 images of one.
    """
    split = dataset.split
    if known.given is not None:
        return Division(dict(known.given), known.labels, known.class_names)
    if split.by == "image":
        rows = split_indices(known, split, dataset.name, dataset.few_images)
        return Division(rows, known.labels, known.class_names)
    count = _persons_of_shadow(known, dataset)
    rng = np.random.default_rng(split.seed)
    drawn = np.zeros(len(known.class_names), bool)
    drawn[rng.permutation(len(drawn))[:count]] = True
    in_shadow = drawn[known.labels]
    names = np.array(known.class_names)
    number = np.empty(len(drawn), np.int64)  # the others from 0, then those of shadow
    number[np.concatenate([np.flatnonzero(~drawn), np.flatnonzero(drawn)])] = np.arange(len(drawn))
    labels, others = number[known.labels], np.flatnonzero(~in_shadow)
    left = Labelling(
        labels=labels[others],
        is_test=None if known.is_test is None else known.is_test[others],
        is_val=None if known.is_val is None else known.is_val[others],
        class_names=tuple(names[~drawn].tolist()),
    )
    rows = {name: others[own] for name, own in split_indices(left, split, dataset.name, dataset.few_images).items()}
    rows["shadow"] = rng.permutation(np.flatnonzero(in_shadow))
    return Division(rows, labels, left.class_names, tuple(names[drawn].tolist()))


def _persons_of_shadow(known: Labelling, dataset: DatasetSettings) -> int:
    """How many persons are the attacker's. Raises DataError where that cannot be."""
    where, names, amount = dataset.name, known.class_names, dataset.split.shadow
    if len(names) < _FEWEST_CLASSES:
        raise DataError(
            f"{where}: split by identity needs at least {_FEWEST_CLASSES} persons, one for shadow and two to tell "
            f"apart; found {len(names)}. Add persons, or use split.by: image."
        )
    counts = np.bincount(known.labels, minlength=len(names))
    few = np.flatnonzero(counts < _FEWEST_IMAGES)
    if len(few):
        listed = ", ".join(f"{names[label]!r} ({counts[label]})" for label in few[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"{where}: split by identity needs at least {_FEWEST_IMAGES} images of every person, one each for private, "
            f"val and test; fewer are of {listed}{more}. Add images, or leave such persons out."
            f"{dataset.few_images and ' '}{dataset.few_images}"
        )
    count = _total(amount, len(names))
    if not 1 <= count <= len(names) - 2:
        raise DataError(
            f"{where}: split by identity expects shadow to be 1 to {len(names) - 2} of the {len(names)} persons; found "
            f"split.shadow {amount}, which is {count}. By identity it counts persons, or is a fraction of them."
        )
    return count


def split_indices(known: Labelling, split: Split, where: str = "data set", advice: str = "") -> dict[str, Rows]:
    """Rows of the images in each split, shuffled, from the split's seed alone; by identity none for shadow.

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
    shadow = rest[:0]
    if split.by == "image":
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
        total = _total(amount, whole)
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


def _total(amount: int | float, whole: int) -> int:
    """A count, or a fraction of the whole, rounded down."""
    return amount if isinstance(amount, int) else int(Fraction(str(amount)) * whole)  # 0.29 of 100 is 29, not 28


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
