"""Methods as rows of results tell them: accuracy and error of each, by seed and strength. It reads no files."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from cem import CemError
from cem.report.interpolation import COUNTS, Along, Table, grows
from cem.report.methods import METHOD_COLUMNS, PLAIN
from cem.report.statistics import LogErrors, PerSeed, near_chance
from cem.report.threat import SEPARATOR

NEEDED = (
    "run", "dataset", "seed", "reference", *METHOD_COLUMNS, "accuracy", "majority_accuracy", "test_images",
    "attack", "scope", "images", "strongest_of", "strongest_bound", "mse", "mse_ratio_to_mean_image",
)  # fmt: skip
Images = Callable[[str, str], Float[np.ndarray, " images"]]  # run, attack → the error of each test image
PLACE = ("dataset", "arena", "arena_id", "threat_model")  # of what may be compared


class SeriesError(CemError):
    """Rows of results that cannot be compared."""


@dataclass(frozen=True)
class Place:
    """Errors of a method at one accuracy for each seed. missed: seeds whose curve does not span it.

    limit: whether an error that counts is only an upper limit. chance: whether one is of a network near chance.
    images: on how many, the first ones of the split, the errors that count were scored.
    """

    seeds: tuple[int, ...]
    errors: LogErrors
    missed: tuple[int, ...]
    limit: bool
    chance: bool
    images: frozenset[int]

    @property
    def reached(self) -> bool:
        """By every seed, of which there is one."""
        return bool(self.seeds) and not self.missed

    def over(self, other: "Place") -> LogErrors:
        """The logarithm of the factor of two methods' errors, of the seeds that both have."""
        both = [seed for seed in self.seeds if seed in other.seeds]
        mine, theirs = (one.errors.rows([one.seeds.index(seed) for seed in both]) for one in (self, other))
        return mine - theirs


@dataclass(frozen=True)
class Series:
    """One method under the strongest attacks of one threat model.

    rows: one per seed and strength. strengths: the weakest first. seeds: those with a result at every strength.
    images: where errors of single images come from; None: nowhere.
    """

    label: str
    by: str
    rows: pd.DataFrame
    strengths: tuple[float, ...]
    seeds: tuple[int, ...]
    images: Images | None

    @classmethod
    def of(cls, rows: pd.DataFrame, images: Images | None) -> "Series":
        """Of a method's rows. Raises SeriesError where a seed and strength has two."""
        first, key = rows.iloc[0], ["seed", "strength"]
        if rows.duplicated(key).any():
            twins = rows.loc[rows.duplicated(key, keep=False), "run"].unique()
            raise SeriesError(
                f"{first['method']}: expected one run per seed and strength, found {', '.join(twins[:4])}. Give each "
                "study's results once"
            )
        strengths = tuple(sorted(rows["strength"].unique()))
        counts = rows.groupby("seed").size()
        seeds = tuple(sorted(counts.index[counts == len(strengths)]))
        found = cls(first["method"], first["strength_name"], rows, strengths, seeds, images)
        if grows(found.accuracy, found.table("mse")):
            return found
        return cls(found.label, found.by, rows, strengths[::-1], seeds, images)

    @property
    def plain(self) -> bool:
        """Whether it is what the others are held against."""
        return self.label == PLAIN

    @property
    def one_network(self) -> bool:
        """Whether all seeds have one network, which is given: their spread then says nothing of training."""
        return bool(self.rows["one_network"].any())

    def table(self, column: str) -> Table:
        """A column of the rows."""
        return self._table(self.rows, column)

    def _table(self, rows: pd.DataFrame, column: str) -> Table:
        table = rows.pivot(index="seed", columns="strength", values=column)
        found: Table = table.loc[list(self.seeds), list(self.strengths)].to_numpy(float)
        return found

    @cached_property
    def accuracy(self) -> Table:
        return self.table("accuracy")

    @cached_property
    def reference(self) -> PerSeed:
        """Accuracy of the undefended network of the same seed; NaN where there is none."""
        reference: PerSeed = self.table("reference_accuracy")[:, 0]
        return reference

    @property
    def unusable(self) -> str:
        """Why it has no curve; empty where it has one."""
        if not self.seeds:
            return "no seed has a result at every strength"
        if np.isnan(self.accuracy).any():
            return "the accuracy is not known"
        if (self.table("mse") <= 0).any():
            return "every pixel is rebuilt, and an error of 0 has no logarithm"
        return ""

    @cached_property
    def errors(self) -> tuple[LogErrors, ...]:
        """Of each strength, seed by seed."""
        if self.images is None:
            return tuple(LogErrors(one, None) for one in np.log(self.table("mse")).T)
        keys = zip(self.rows["strength"], self.rows["seed"], strict=True)
        named = dict(zip(keys, zip(self.rows["run"], self.rows["attack"], strict=True), strict=True))
        return tuple(
            LogErrors.of([self.images(*named[strength, seed]) for seed in self.seeds]) for strength in self.strengths
        )

    @cached_property
    def _limits(self) -> Bool[np.ndarray, "seeds strengths"]:
        return self.table("strongest_bound") > 0

    @cached_property
    def _chance(self) -> Bool[np.ndarray, "seeds strengths"]:
        near = self.rows.assign(chance=[near_chance(row) for _, row in self.rows.iterrows()])
        return self._table(near, "chance") > 0

    @cached_property
    def _images(self) -> Table:
        return self.table("images")

    @cached_property
    def _along(self) -> Along:
        return Along(self.accuracy, self.errors)

    def at(self, accuracy: dict[int, float]) -> Place:
        """Its errors where it has these accuracies, seed by seed. Seeds that it does not have are left out."""
        errors, share = self._along.at(np.array([accuracy.get(seed, math.nan) for seed in self.seeds]))
        there, counts = np.flatnonzero(~np.isnan(errors.mean)).tolist(), np.abs(share) > COUNTS
        seeds = tuple(self.seeds[place] for place in there)
        return Place(
            seeds=seeds,
            errors=errors.rows(there),
            missed=tuple(seed for seed in self.seeds if seed in accuracy and seed not in seeds),
            limit=bool(self._limits[counts].any()),
            chance=bool(self._chance[counts].any()),
            images=frozenset(self._images[counts].astype(int).tolist()),
        )

    def alone(self, strength: float) -> "Series":
        """One strength, with all seeds that have it."""
        return Series.of(self.rows[self.rows["strength"] == strength], self.images)

    def below_reference(self, points: float) -> dict[int, float]:
        """For each seed that has one, the accuracy of its undefended network less so many points."""
        pairs = zip(self.seeds, self.reference, strict=True)
        return {seed: float(accuracy) - points / 100 for seed, accuracy in pairs if not math.isnan(accuracy)}


def read_series(results: pd.DataFrame, images: Images | None = None) -> dict[tuple[str, ...], list[Series]]:
    """Data set, arena in words and by its id, and threat model → its methods.

    results: rows of one study or several.
    Raises SeriesError where columns are missing, or a run is there twice with different numbers.
    """
    if missing := [name for name in NEEDED if name not in results]:
        raise SeriesError(
            f"expected rows of results with the columns {', '.join(NEEDED)}; missing: {', '.join(missing)}. They are "
            "of an older version: run `cem report` on the study"
        )
    kept = results[(results["scope"] == "infer") & results["strongest_of"].fillna("").ne("")]
    kept = kept[~(kept["reference"].astype(bool) & ~kept["own_network"].astype(bool))]  # of another network
    kept = kept[list(NEEDED)].assign(
        threat=kept["strongest_of"].astype(str).str.split(SEPARATOR), **kept[["strength_name", "arena"]].fillna("")
    )
    rows = kept.explode("threat").drop_duplicates().sort_values("seed", kind="stable")
    found: dict[Any, list[Series]] = {}
    for key, members in rows.groupby([*PLACE[:-1], "threat", "method_id"], sort=False):
        found.setdefault(key[:-1], []).append(Series.of(members, images))
    return found
