"""Comparisons at equal accuracy, by the log of the factor of two errors, paired by seed. No interval, no verdict."""

import math
from dataclasses import dataclass

from cem.report.curves import Curve, Doubt, Point, places_at
from cem.report.statistics import Estimate, LogErrors, over_seeds

MARGIN = 0.005  # accuracy lost at most, by the interval's end, where one point is held to be as accurate as another
NOTHING = Estimate(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Comparison:
    """One curve's error over another's. log: of the factor. how: how accuracies are equal, in words.

    why: why nothing can be said; empty where something can.
    """

    method: str
    other: str
    how: str = ""
    accuracy: Estimate = NOTHING
    log: Estimate = NOTHING
    why: tuple[Doubt, ...] = ()

    @property
    def raises(self) -> bool:
        """Whether the method's error is the larger one."""
        return self.log.mean > 0


def compare(method: Curve, other: Curve) -> list[Comparison]:
    """What can be said of a method beside another, a comparison per accuracy where it can; else one that says why."""
    found = [_at_point(point, method, other, False) for point in method.points]
    if not any(found):
        found = [_at_point(point, other, method, True) for point in other.points]
    interpolated = [comparison for comparison in found if comparison is not None]
    if interpolated:
        return interpolated
    dominant = [one for mine in method.points for theirs in other.points if (one := _dominance(mine, theirs))]
    return dominant or [Comparison(method.label, other.label, why=_why_not(method, other))]


def _at_point(point: Point, own: Curve, other: Curve, turned: bool) -> Comparison | None:
    """A measured point held against the other curve at its accuracy; None where that has none.

    turned: the measured point is the other's, and the method is interpolated.
    """
    seeds = _shared(point, other)
    place = next(iter(places_at(other, point, seeds)), None) if seeds else None
    if place is None:
        return None
    log = point.errors(seeds) - place.errors
    method, against = point.group.label, f"{other.label}, {place.label}"
    if turned:
        log, method, against = -log, place.label, point.group.label
    doubts = [*point.doubts, *place.first.doubts, *place.second.doubts, *_other_images(log, method)]
    doubts += [("1 seed in common", f"{method} and {against}")] if len(seeds) == 1 else []
    how = f"interpolated along {other.by}"
    return _judged(method, against, how, over_seeds(point.accuracy(seeds)), log, doubts)


def _judged(method: str, other: str, how: str, accuracy: Estimate, log: LogErrors, doubts: list[Doubt]) -> Comparison:
    estimate = log.estimate()
    if not doubts and not (estimate.low > 0 or estimate.high < 0):
        doubts = [("the factor of the errors may be 1 by its interval", f"{method}: {estimate.factor_text()}")]
    return Comparison(method, other, how, accuracy, estimate, tuple(dict.fromkeys(doubts)))


def _dominance(mine: Point, theirs: Point) -> Comparison | None:
    """One point that is at least as accurate and lets less be rebuilt than the other, both by their intervals."""
    seeds = _common(mine, theirs)
    if len(seeds) < 2 or mine.doubts or theirs.doubts:
        return None
    gained = over_seeds(mine.accuracy(seeds) - theirs.accuracy(seeds))
    if gained.low < -MARGIN and gained.high > MARGIN:
        return None  # before what takes longer: large studies have thousands of pairs
    log = mine.errors(seeds) - theirs.errors(seeds)
    estimate = log.estimate()
    better, worse = gained.low >= -MARGIN and estimate.low > 0, gained.high <= MARGIN and estimate.high < 0
    if not (better or worse) or log.share is None:
        return None
    which = "more" if better else "less"
    how = f"{which} error at {'no less' if better else 'no more'} accuracy ({100 * MARGIN:g} points are allowed for)"
    accuracy = over_seeds(mine.accuracy(seeds))
    return Comparison(mine.group.label, theirs.group.label, how, accuracy, estimate)


def _why_not(method: Curve, other: Curve) -> tuple[Doubt, ...]:
    doubts = [doubt for point in (*method.points, *other.points) for doubt in point.doubts]
    ranges = [_range(curve) for curve in (method, other)]
    if None not in ranges:
        what = "test accuracies differ, and neither is surely the better one in accuracy and error"
        by = " or ".join(dict.fromkeys((method.by, other.by)))
        doubts.append(
            (f"{what} (more values of {by} would tell)", f"{method.label} {ranges[0]}, {other.label} {ranges[1]}")
        )
    return tuple(dict.fromkeys(doubts))


def _range(curve: Curve) -> str | None:
    """Mean accuracies of a curve's points, in percent."""
    means = [100 * float(point.rows["accuracy"].mean()) for point in curve.points if not point.rows.empty]
    if not means:
        return None
    low, high = f"{min(means):.1f}", f"{max(means):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def _other_images(log: LogErrors, what: str) -> list[Doubt]:
    return [("the strongest attacks are scored on different images", what)] if log.share is None else []


def _common(*points: Point) -> list[int]:
    """Seeds that all of these have."""
    shared = set.intersection(*(set(point.rows.index) for point in points))
    return sorted(shared)


def _shared(point: Point, curve: Curve) -> list[int]:
    """Seeds that a point shares with a curve's."""
    everywhere = [other for other in curve.points if not other.rows.empty]
    return _common(point, *everywhere) if everywhere else []
