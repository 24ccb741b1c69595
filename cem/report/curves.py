"""Curves of accuracy against error: the same method at several strengths, and plain noise at several σ."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd

from cem.config import NoSurrogate, Run
from cem.report.groups import Group
from cem.report.scores import Scores
from cem.report.statistics import LogErrors, PerSeed, over_seeds
from cem.report.threat import ThreatModel

NEAR_CHANCE = 3  # standard errors
Doubt = tuple[str, str]  # why nothing can be said, and by which runs


@dataclass(frozen=True)
class Point:
    """A group under the strongest attack of one threat model. rows: one per seed, indexed by it."""

    group: Group
    rows: pd.DataFrame
    scores: Scores

    @cached_property
    def seeds(self) -> frozenset[int]:
        """Those with a result."""
        return frozenset(self.rows.index)

    def accuracy(self, seeds: list[int]) -> PerSeed:
        """Of each of these seeds, in [0, 1]."""
        return self.values("accuracy", seeds)

    def values(self, column: str, seeds: list[int]) -> PerSeed:
        """A column of the rows, of each of these seeds."""
        of_seed = self._values(column)
        return np.array([of_seed[seed] for seed in seeds])

    @cached_property
    def _values(self) -> Callable[[str], dict[int, float]]:
        """Read from the table once: a point is held against every point of other curves."""

        @cache
        def values(column: str) -> dict[int, float]:
            return dict(zip(self.rows.index, self.rows[column].astype(float), strict=True))

        return values

    def errors(self, seeds: list[int]) -> LogErrors:
        """Of each of these seeds, on test images."""
        return self._errors(tuple(seeds))

    @cached_property
    def exact(self) -> bool:
        """Whether a seed's error is 0, which has no logarithm."""
        return bool((self.rows["mse"] <= 0).any())

    @cached_property
    def _errors(self) -> Callable[[tuple[int, ...]], LogErrors]:
        """Made once for each choice of seeds, too."""

        @cache
        def errors(seeds: tuple[int, ...]) -> LogErrors:
            rows = self.rows.loc[list(seeds)]
            named = zip(rows["run"], rows["attack"], strict=True)
            return LogErrors.of([self.scores.images(run, attack, "infer", "mse") for run, attack in named])

        return errors

    @cached_property
    def doubts(self) -> tuple[Doubt, ...]:
        """Why nothing can be said by these runs; empty where something can."""
        return tuple(self._doubts())

    def _doubts(self) -> list[Doubt]:
        name, count = self.group.label, len(self.group.runs)
        if self.rows.empty:
            return [("no attack counts", name)]
        found = [("one network, given", name)] if self.group.one_network else []
        if missing := count - len(self.rows):
            found.append(("no attack counts", f"{name} ({missing} of {count} seeds)"))
        if len(self.rows) == 1:
            found.append(("1 seed", name))
        if near := [seed for seed, row in self.rows.iterrows() if near_chance(row)]:
            lowest = 100 * self.rows.loc[near, "accuracy"].min()
            share = 100 * self.rows["majority_accuracy"].iloc[0]
            always = f"always the most frequent class {share:.1f} %"
            found.append(("near chance", f"{name} (test accuracy {lowest:.1f} % in one seed, {always})"))
        if limits := int(self.rows["strongest_bound"].sum()):
            found.append(("the error is only an upper limit (≤)", f"{name} ({limits} of {len(self.rows)} seeds)"))
        if self.exact:
            found.append(("every pixel is rebuilt, and no factor of an error of 0 can be given", name))
        return found


@dataclass(frozen=True)
class Curve:
    """Points that differ in one strength, in its order. by: its name; empty where the method has none."""

    label: str
    by: str
    points: tuple[Point, ...]

    def strength(self, point: Point) -> float:
        """How much of `by` a point has."""
        return _strength(point.group.first)[1]


@dataclass(frozen=True)
class Arena:
    """What may be compared: equal data, network and training, one threat model. plain: noise alone, None without."""

    plain: Curve | None
    methods: tuple[Curve, ...]


def near_chance(row: "pd.Series[Any]") -> bool:
    """Whether an accuracy is within three standard errors of always naming the most frequent class."""
    share = float(row["majority_accuracy"])
    error = math.sqrt(share * (1 - share) / row["test_images"])
    return bool(row["accuracy"] <= share + NEAR_CHANCE * error)


def arenas(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> list[Arena]:
    """All of a study, in its order."""
    found: dict[str, dict[str, list[Group]]] = {}
    for group in groups:
        outside = repr(_without(group.first, "seed", "surrogate", "noise_std", "defenses"))
        family = "" if is_plain(group.first) else repr(_family(group.first))
        found.setdefault(outside, {}).setdefault(family, []).append(group)

    def curve(family: str, members: list[Group]) -> Curve:
        ordered = sorted(members, key=lambda group: _strength(group.first)[1])
        points = tuple(Point(one, one.headline(results, threat), scores) for one in ordered)
        by, _ = _strength(ordered[0].first)
        label = "plain noise" if family == "" else " / ".join(one.label for one in ordered)
        return Curve(label, by, points)

    return [
        Arena(
            curve("", families[""]) if "" in families else None,
            tuple(curve(family, members) for family, members in families.items() if family != ""),
        )
        for families in found.values()
    ]


def is_plain(run: Run) -> bool:
    """Whether nothing but noise, or nothing at all, tells a run from the undefended one."""
    return not run.defenses and run.surrogate == NoSurrogate()


def _strength(run: Run) -> tuple[str, float]:
    """What makes a method stronger or weaker, and how much of it a run has: its name, empty where there is none.

    The noise of plain noise, the weight of a surrogate's term, and without one the strength of the only defence.
    """
    if is_plain(run):
        return "σ", run.noise_std
    if run.surrogate.adds_term:
        return "λ", run.surrogate.weight
    if len(run.defenses) == 1 and run.defenses[0].strength:
        name = run.defenses[0].strength
        return name, getattr(run.defenses[0], name)
    return "", 0.0


def _family(run: Run) -> dict[str, Any]:
    """What the runs of a curve share: all but the seed and the strength."""
    settings = _without(run, "seed")
    surrogate = {name: value for name, value in settings.get("surrogate", {}).items() if name != "weight"}
    by, _ = _strength(run)
    defenses = [{name: value for name, value in one.items() if name != by} for one in settings.get("defenses", [])]
    return settings | {"surrogate": surrogate, "defenses": defenses}


def _without(run: Run, *names: str) -> dict[str, Any]:
    return {name: value for name, value in run.sparse().items() if name not in names}


@dataclass(frozen=True)
class Between:
    """A place on a curve, seed by seed: between two neighbours, and the errors there."""

    first: Point
    second: Point
    seeds: list[int]
    errors: LogErrors

    @property
    def label(self) -> str:
        """In words."""
        return f"between {self.first.group.label} and {self.second.group.label}"


def place_at(curve: Curve, point: Point) -> Between | None:
    """Where a curve has a point's accuracy in every seed that the neighbours there share with it; None: nowhere.

    Logs of errors are interpolated linearly. Of several places that with the most seeds, then the largest error.
    """
    found = []
    for first, second in zip(curve.points, curve.points[1:], strict=False):
        if any(one.exact for one in (point, first, second)):
            continue
        seeds = common_seeds(point, first, second)
        wanted, start, end = (one.accuracy(seeds) for one in (point, first, second))
        if not seeds or not ((np.minimum(start, end) <= wanted) & (wanted <= np.maximum(start, end))).all():
            continue
        low, high, apart = first.errors(seeds), second.errors(seeds), end - start
        # Neighbours of equal accuracy have it both: the one with the larger error is held against the point.
        part = np.where(high.mean > low.mean, 1.0, 0.0)
        np.divide(wanted - start, apart, out=part, where=apart != 0)
        found.append(Between(first, second, seeds, low.times(1 - part).plus(high, part)))
    return max(found, key=lambda place: (len(place.seeds), over_seeds(place.errors.mean).mean), default=None)


def common_seeds(*points: Point) -> list[int]:
    """Seeds that all of these have."""
    return sorted(frozenset.intersection(*(point.seeds for point in points)))
