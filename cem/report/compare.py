"""Comparisons at equal accuracy, by the log of the factor of two errors, paired by seed. No interval, no verdict.

What is told is told by the p value after Holm, as in the tables (`cem/report/equal_accuracy.py`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cem.report.curves import Curve, Doubt, Point, common_seeds, place_at
from cem.report.statistics import LEVEL, Estimate, LogErrors, holm, over_seeds

MARGIN = 0.005  # accuracy lost at most, by the interval's end, where one point is held to be as accurate as another
NOTHING = Estimate(math.nan, math.nan, 0)


@dataclass(frozen=True)
class Comparison:
    """One curve's error over another's. log: of the factor. how: how accuracies are equal, in words.

    why: why nothing can be said; empty where something can. p: of a factor of 1, after Holm. beside: comparisons of the
    same curves that were made, too, and are not shown, since they tell nothing.
    """

    method: str
    other: str
    how: str = ""
    accuracy: Estimate = NOTHING
    log: Estimate = NOTHING
    why: tuple[Doubt, ...] = ()
    p: float = math.nan
    beside: int = 0

    @property
    def raises(self) -> bool:
        """Whether the method's error is the larger one."""
        return self.log.mean > 0


def compare(method: Curve, other: Curve) -> list[Comparison]:
    """What may be said of a method beside another, a comparison per accuracy where it may; else one that says why.

    Whether it is said, `told` decides, by all comparisons of a page.
    """
    for points, curve in ((method.points, other), (other.points, method)):
        found = [_at_point(point, curve, curve is method) for point in points]
        interpolated = [comparison for comparison in found if comparison is not None]
        if interpolated:
            outside = [point for point, one in zip(points, found, strict=True) if one is None]
            names = " / ".join(point.group.label for point in outside)
            pair = (names, other.label) if curve is other else (method.label, names)
            return interpolated + [Comparison(*pair, why=_outside(outside, curve))] * bool(outside)
    made = [one for mine in method.points for theirs in other.points if (one := _dominance(mine, theirs))]
    sure = [one for one in made if one.how]
    first, *rest = sure or [Comparison(method.label, other.label, why=_why_not(method, other))]
    return [replace(first, beside=len(made) - len(sure)), *rest]


def told(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """A family of comparisons with p values for all of it; what a few of so many show by chance is not said."""
    own = [one.log.p_value for one in comparisons]
    adjusted = holm([*own, *[1.0] * sum(one.beside for one in comparisons)])
    return [_by_chance(replace(one, p=p)) for one, p in zip(comparisons, adjusted, strict=False)]


def _by_chance(one: Comparison) -> Comparison:
    """With the doubt that the factor may be 1, where that is so, beside whatever else speaks against a verdict."""
    if math.isnan(one.p) or one.p <= 1 - LEVEL:
        return one
    by = "by its interval" if one.log.low <= 0 <= one.log.high else f"after Holm: p {one.p:.3f}"
    doubt = (f"the factor of the errors may be 1 {by}", f"{one.method}: {one.log.factor_text()}")
    return replace(one, why=(*one.why, doubt))


def _at_point(point: Point, other: Curve, turned: bool) -> Comparison | None:
    """A measured point held against a curve at its accuracy; None where that has none.

    turned: the curve is the method's.
    """
    place = place_at(other, point)
    if place is None:
        return None
    log = point.errors(place.seeds) - place.errors
    method, against = point.group.label, f"{other.label}, {place.label}"
    if turned:
        log, method, against = -log, place.label, point.group.label
    doubts = [*point.doubts, *(doubt for one in place.counted for doubt in one.doubts)]
    how = f"interpolated along {other.by}"
    return _judged(method, against, how, over_seeds(point.accuracy(place.seeds)), log, doubts)


def _outside(points: Sequence[Point], curve: Curve) -> tuple[Doubt, ...]:
    """Why points are not held against a curve of which others are."""
    why = f"no two neighbouring strengths of {curve.label} ({_range(curve)}) have its test accuracy between them"
    doubts = [(f"{why} in every seed", f"{point.group.label} ({_accuracy(point)})") for point in points]
    return tuple(dict.fromkeys(doubts + [doubt for point in points for doubt in point.doubts]))


def _judged(method: str, other: str, how: str, accuracy: Estimate, log: LogErrors, doubts: list[Doubt]) -> Comparison:
    """A comparison at equal accuracy, with what speaks against a verdict whatever the factor."""
    both = f"{method} and {other}"
    estimate = log.estimate() if log.share is not None else NOTHING
    doubts += [("the strongest attacks are scored on different images", both)] if log.share is None else []
    doubts += [("1 seed in common", both)] if estimate.n == 1 else []
    return Comparison(method, other, how, accuracy, estimate, tuple(dict.fromkeys(doubts)))


def _dominance(mine: Point, theirs: Point) -> Comparison | None:
    """Two points of equal accuracy; or one that is as accurate and lets less be rebuilt. Both by their intervals.

    None where accuracies do not allow for a comparison; without a `how` where errors were compared and tell nothing.
    """
    seeds = common_seeds(mine, theirs)
    if len(seeds) < 2 or mine.doubts or theirs.doubts:
        return None
    gained = over_seeds(mine.accuracy(seeds) - theirs.accuracy(seeds))
    if gained.low < -MARGIN and gained.high > MARGIN:
        return None  # before what takes longer: large studies have thousands of pairs
    log = mine.errors(seeds) - theirs.errors(seeds)
    estimate = log.estimate()
    no_less, no_more = gained.low >= -MARGIN, gained.high <= MARGIN
    if no_less and no_more:
        how = "equal"
    elif no_less and estimate.low > 0:
        how = "more error at no less accuracy"
    elif no_more and estimate.high < 0:
        how = "less error at no more accuracy"
    else:
        return Comparison(mine.group.label, theirs.group.label)
    how += f" ({100 * MARGIN:g} points are allowed for)"
    return _judged(mine.group.label, theirs.group.label, how, over_seeds(mine.accuracy(seeds)), log, [])


def _why_not(method: Curve, other: Curve) -> tuple[Doubt, ...]:
    """What stands against each pair of points; where nothing does against some, that these do not decide."""
    doubts = [doubt for point in (*method.points, *other.points) for doubt in point.doubts]
    sound = [[point for point in curve.points if not point.doubts] for curve in (method, other)]
    pairs = [(mine, theirs) for mine in sound[0] for theirs in sound[1]]
    if pairs:
        doubts.append(_undecided(method, other, max(len(common_seeds(*pair)) for pair in pairs)))
    return tuple(dict.fromkeys(doubts))


def _undecided(method: Curve, other: Curve, seeds: int) -> Doubt:
    """Why two curves say nothing of each other, of which two points have so many seeds in common at most."""
    if seeds < 2:
        return (f"{'1 seed' if seeds else 'no seed'} in common", f"{method.label} and {other.label}")
    by = " or ".join(filter(None, dict.fromkeys((method.by, other.by))))
    why = "test accuracies differ, and neither is surely the better one in accuracy and error"
    where = f"{method.label} {_range(method)}, {other.label} {_range(other)}"
    return (f"{why} (more values of {by} would tell)", where)


def _accuracy(point: Point) -> str:
    return f"{100 * float(point.rows['accuracy'].mean()):.1f} %"


def _range(curve: Curve) -> str:
    """Mean accuracies of a curve's points, in percent."""
    means = [100 * float(point.rows["accuracy"].mean()) for point in curve.points if not point.rows.empty]
    low, high = f"{min(means):.1f}", f"{max(means):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"
