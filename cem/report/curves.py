"""Curves of accuracy against error: the same method at several strengths, and plain noise at several σ."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import takewhile

import numpy as np
import pandas as pd

from cem.report.groups import Group
from cem.report.interpolation import COUNTS, Along, grows
from cem.report.methods import PLAIN, methods_of
from cem.report.scores import Scores
from cem.report.statistics import LogErrors, PerSeed, near_chance, over_seeds
from cem.report.threat import ThreatModel

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
        for why, limits in self._limits().items():
            found.append((why, name if limits == len(self.rows) else f"{name} ({limits} of {len(self.rows)} seeds)"))
        if self.exact:
            found.append(("every pixel is rebuilt, and no factor of an error of 0 can be given", name))
        return found

    def _limits(self) -> Counter[str]:
        """Seeds whose error is only an upper limit, by why it is one, where the strongest attack itself says it."""
        limits = self.rows[self.rows["strongest_bound"]]
        return Counter(
            "the error is only an upper limit (≤"
            + (f"; {row['attack']} {row['attack_verdict']})" if row["attack_bound"] else ")")
            for _, row in limits.iterrows()
        )


@dataclass(frozen=True)
class Curve:
    """Points that differ in one strength, in its order. by: its name; empty where the method has none."""

    label: str
    by: str
    points: tuple[Point, ...]
    strengths: tuple[float, ...]  # how much of `by` each point has
    setting: str = ""  # what tells its arena from others of the study

    @property
    def name(self) -> str:
        """What the labels of its points share, with … for what differs, and the range of its strength."""
        labels = [point.group.label for point in self.points]
        if len(labels) == 1:
            return labels[0]
        start = _shared(labels).rstrip("0123456789.")
        end = _shared([label[len(start) :][::-1] for label in labels])[::-1].lstrip("0123456789.")
        return f"{start}…{end} ({self.by} {self.strengths[0]:g} to {self.strengths[-1]:g})"

    @cached_property
    def along(self) -> Callable[[tuple[int, ...]], tuple[tuple[Point, ...], Along]]:
        """Of some seeds, by all points that have them and whose errors have a logarithm. Made once for each choice."""

        @cache
        def along(seeds: tuple[int, ...]) -> tuple[tuple[Point, ...], Along]:
            points = tuple(one for one in self.points if one.seeds >= set(seeds) and not one.exact)
            accuracy = np.column_stack([one.accuracy(list(seeds)) for one in points])
            errors = tuple(one.errors(list(seeds)) for one in points)
            if grows(accuracy, np.column_stack([one.mean for one in errors])):
                return points, Along(accuracy, errors)
            return points[::-1], Along(accuracy[:, ::-1], errors[::-1])

        return along


@dataclass(frozen=True)
class Arena:
    """What may be compared: equal data, one threat model. plain: noise alone, None without. See `methods_of`."""

    plain: Curve | None
    methods: tuple[Curve, ...]


@dataclass(frozen=True)
class MethodGroups:
    """Groups of one method, by its strength, the least first. plain: of noise alone."""

    groups: tuple[Group, ...]
    strengths: tuple[float, ...]
    plain: bool
    by: str
    setting: str


def groups_by_method(groups: list[Group]) -> list[list[MethodGroups]]:
    """Of each arena its methods, plain noise first; all else in the order of the study."""
    methods = methods_of(
        [group.first for group in groups if not group.reference],
        [group.first for group in groups if group.reference],
    )
    found: dict[str, dict[str, list[Group]]] = {}
    for group in groups:
        method = methods[group.first.id]
        if method.inside or not group.reference:  # another network's reference is in no curve
            found.setdefault(method.arena, {}).setdefault(method.id, []).append(group)

    def method_groups(members: list[Group]) -> MethodGroups:
        ordered = sorted(members, key=lambda group: methods[group.first.id].strength)
        method = methods[ordered[0].first.id]
        strengths = tuple(methods[one.first.id].strength for one in ordered)
        return MethodGroups(tuple(ordered), strengths, method.plain, method.by, method.setting)

    return [
        sorted((method_groups(members) for members in by_id.values()), key=lambda one: not one.plain)
        for by_id in found.values()
    ]


def arenas(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> list[Arena]:
    """All of a study, in its order."""

    def curve(method: MethodGroups) -> Curve:
        points = tuple(Point(one, one.headline(results, threat), scores) for one in method.groups)
        label = PLAIN if method.plain else " / ".join(one.label for one in method.groups)
        return Curve(label, method.by, points, method.strengths, method.setting)

    found = []
    for members in groups_by_method(groups):
        plain = [curve(one) for one in members if one.plain]
        others = (curve(one) for one in members if not one.plain)
        found.append(Arena(plain[0] if plain else None, tuple(others)))
    return found


@dataclass(frozen=True)
class Drawn:
    """A curve as charts have it. points: those whose accuracy and error are known. plain: of noise alone.

    method: its place among the other methods of the study, drawn or not, which chooses its colour.
    """

    curve: Curve
    points: tuple[Point, ...]
    plain: bool
    method: int


def drawn(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> list[Drawn]:
    """All curves of a study that have a known point, in its order; plain noise first in each arena."""
    found: list[Drawn] = []
    method = 0
    for arena in arenas(groups, results, threat, scores):
        for curve in (*([arena.plain] if arena.plain else []), *arena.methods):
            points = tuple(one for one in curve.points if not one.rows.empty and one.rows["accuracy"].notna().all())
            if points:
                found.append(Drawn(curve, points, curve is arena.plain, method))
            method += curve is not arena.plain
    return found


@dataclass(frozen=True)
class Between:
    """A place on a curve, seed by seed: between two neighbours, and the errors there. counted: what these rest on."""

    first: Point
    second: Point
    counted: tuple[Point, ...]
    seeds: list[int]
    errors: LogErrors

    @property
    def label(self) -> str:
        """In words."""
        return f"between {self.first.group.label} and {self.second.group.label}"


def place_at(curve: Curve, point: Point) -> Between | None:
    """Where a curve has a point's accuracy in every seed that the neighbours there share with it; None: nowhere.

    The error there is that of `monotone`, along all points of the curve that have these seeds. Of several places that
    with the most seeds, then the largest error, then the last one.
    """
    found: list[Between] = []
    for first, second in zip(curve.points, curve.points[1:], strict=False):
        if any(one.exact for one in (point, first, second)):
            continue
        seeds = common_seeds(point, first, second)
        wanted, start, end = (one.accuracy(seeds) for one in (point, first, second))
        if not seeds or not ((np.minimum(start, end) <= wanted) & (wanted <= np.maximum(start, end))).all():
            continue
        points, along = curve.along(tuple(seeds))
        there, share = along.at(wanted)
        if not np.isnan(there.mean).any():
            counts = (np.abs(share) > COUNTS).any(axis=0)
            counted = tuple(one for one, counted in zip(points, counts, strict=True) if counted)
            found.append(Between(first, second, counted, seeds, there))
    return max(found[::-1], key=lambda place: (len(place.seeds), over_seeds(place.errors.mean).mean), default=None)


def common_seeds(*points: Point) -> list[int]:
    """Seeds that all of these have."""
    return sorted(frozenset.intersection(*(point.seeds for point in points)))


def _shared(words: list[str]) -> str:
    """What all of these begin with."""
    alike = (len(set(letters)) == 1 for letters in zip(*words, strict=False))
    return words[0][: len(list(takewhile(bool, alike)))]
