"""The front as the page draws it: accuracy against error, a family of methods a colour, its strengths joined by a line.

Of the same numbers as `charts.accuracy_against_error`, which is the file for papers; here each point can be asked.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from cem.report.curves import Curve, Drawn, Point, drawn
from cem.report.groups import Group
from cem.report.methods import PLAIN
from cem.report.pictures import method_colour
from cem.report.scores import Scores
from cem.report.statistics import Estimate, over_seeds
from cem.report.threat import ThreatModel

WIDTH, HEIGHT = 860, 470
LEFT, RIGHT, TOP, BOTTOM = 70, 24, 18, 54  # of the frame, in the picture's units
LOG_BEYOND = 12  # times the least error: then the errors' axis is logarithmic
LINES = (("6 4", "dashed"), ("2 3", "dotted"), ("none", "solid"))  # of plain noise: in the picture, in the legend
Place = tuple[float, float]


@dataclass(frozen=True)
class Dot:
    """A group. text: what is told of it. bars: the ends of its intervals. seeds: its single runs. limit: hollow."""

    x: float
    y: float
    text: str
    strength: str
    bars: tuple[tuple[float, float, float, float], ...]
    seeds: tuple[Place, ...]
    limit: bool


@dataclass(frozen=True)
class Family:
    """A method at its strengths, in their order. colour: a CSS colour that no other method has.

    dash, border: of its line in the picture and in the legend, where it is plain noise, which is black in every arena;
    another in each.
    """

    name: str
    colour: str
    plain: bool
    dots: tuple[Dot, ...]
    dash: str = ""
    border: str = ""

    @property
    def path(self) -> str:
        """The line through its points, as an SVG path."""
        return " ".join(f"{'L' if place else 'M'}{dot.x:g},{dot.y:g}" for place, dot in enumerate(self.dots))


@dataclass(frozen=True)
class Front:
    """All that is drawn, in the picture's units. means: of the mean image, one per data set, with its name. alt: what
    is seen, in words."""

    families: tuple[Family, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    means: tuple[tuple[float, str], ...]
    log: bool
    alt: str
    caption: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    top: int = TOP
    bottom: int = HEIGHT - BOTTOM


@dataclass(frozen=True)
class _Measured:
    """A point before it has a place."""

    point: Point
    accuracy: Estimate
    error: Estimate


def front(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> Front | None:
    """Of one threat model; None where no attack counts on any run whose accuracy is known."""
    found = [(one, [_measure(point, scores) for point in one.points]) for one in drawn(groups, results, threat, scores)]
    if not found:
        return None
    measured = [point for _, points in found for point in points]
    rows = pd.concat([one.point.rows for one in measured])
    means = _mean_images(rows)
    errors = [*(one.error.mean for one in measured), *means.values(), *(float(one) for one in rows["mse"])]
    log = is_wide(errors)
    x_ticks, x = _axis([100 * float(one) for one in rows["accuracy"]], LEFT, WIDTH - RIGHT)
    y_ticks, y = _axis(errors, HEIGHT - BOTTOM, TOP, log=log)
    plain = [one for one, _ in found if one.plain]
    families = tuple(
        Family(
            _named(one),
            "var(--ink)" if one.plain else f"var(--c{one.method}, {method_colour(one.method)})",
            one.plain,
            tuple(_dot(point, one.curve, x, y) for point in points),
            *(LINES[plain.index(one) % len(LINES)] if one.plain else ()),
        )
        for one, points in found
    )
    several = len(means) > 1
    lines = tuple(
        (y(error), "mean image: sees nothing" + (f" ({name})" if several else "")) for name, error in means.items()
    )
    return Front(families, x_ticks, y_ticks, lines, log, _alt(found, log), _caption(threat, log))


def is_wide(errors: Collection[float]) -> bool:
    """Whether errors need a logarithmic axis."""
    return min(errors) > 0 and max(errors) > LOG_BEYOND * min(errors)


def _measure(point: Point, scores: Scores) -> _Measured:
    return _Measured(point, over_seeds(100 * point.rows["accuracy"]), scores.estimate(point.rows, "mse"))


def _mean_images(rows: pd.DataFrame) -> dict[str, float]:
    """Error of answering with the mean image of the attacker's images, where these attacks are scored, by data set."""
    return {str(name): float(error) for name, error in rows.groupby("dataset")["mse_mean_image"].mean().items()}


def _axis(
    values: list[float], start: int, end: int, log: bool | None = None
) -> tuple[tuple[tuple[float, str], ...], Callable[[float], float]]:
    """Ticks with their words, and the place of a value, limited to the axis.

    log: False begins at 0, and None is linear and does not.
    """
    zero = log is False
    low, high = (0.0 if zero else min(values)), max(values)
    if log:
        low, high = low / 1.4, high * 1.4
        ticks = [float(one) for one in LogLocator(subs=(1, 2, 5)).tick_values(low, high)]
    else:
        edge = 0.08 * ((high - low) or abs(high) or 1.0)
        low, high = (0.0 if zero else low - edge), high + edge
        ticks = [float(one) for one in MaxNLocator(7).tick_values(low, high)]

    def place(value: float) -> float:
        part = math.log(max(value, low) / low) / math.log(high / low) if log else (value - low) / (high - low)
        return round(start + min(max(part, 0.0), 1.0) * (end - start), 1)

    inside = [tick for tick in ticks if low <= tick <= high]
    return tuple((place(tick), f"{tick:.6g}".replace("-", "−")) for tick in inside), place


def _dot(one: _Measured, curve: Curve, x: Callable[[float], float], y: Callable[[float], float]) -> Dot:
    rows, group = one.point.rows, one.point.group
    middle = x(one.accuracy.mean), y(one.error.mean)
    bars = []
    if one.accuracy.n > 1 and not math.isnan(one.accuracy.half):
        bars.append((x(one.accuracy.low), middle[1], x(one.accuracy.high), middle[1]))
    if one.error.n > 1 and not math.isnan(one.error.half):
        bars.append((middle[0], y(one.error.low), middle[0], y(one.error.high)))
    limit = bool(rows["strongest_bound"].any())
    seeds = "1 seed" if len(rows) == 1 else f"{len(rows)} seeds"
    text = (
        f"{group.label}\ntest accuracy {one.accuracy.text(4)} %\nMSE {'≤ ' if limit else ''}{one.error.text()}\n"
        f"by {', '.join(dict.fromkeys(rows['attack']))}; {seeds}"
    )
    places = zip(100 * rows["accuracy"], rows["mse"], strict=True)
    single = tuple((x(accuracy), y(error)) for accuracy, error in places) if len(rows) > 1 else ()
    several = curve.by and len(curve.points) > 1
    strength = next(much for point, much in zip(curve.points, curve.strengths, strict=True) if point is one.point)
    return Dot(*middle, text, f"{curve.by} {strength:g}" if several else "", tuple(bars), single, limit)


def _named(one: Drawn) -> str:
    """A family as the legend has it: plain noise with what tells its arena from others."""
    if not one.plain:
        return one.curve.name
    return f"{one.curve.setting}: {PLAIN}" if one.curve.setting else PLAIN


def _alt(found: list[tuple[Drawn, list[_Measured]]], log: bool) -> str:
    """What is seen: where each family begins and ends."""
    told = []
    for one, points in found:
        ends = [points[0], points[-1]] if len(points) > 1 else points
        where = " to ".join(f"{end.accuracy.mean:.1f} % at MSE {end.error.mean:.3g}" for end in ends)
        told.append(f"{_named(one)}: {where}")
    return f"Chart of test accuracy against MSE{' on a logarithmic axis' if log else ''}. " + "; ".join(told) + "."


def _caption(threat: ThreatModel, log: bool) -> str:
    return (
        f"Accuracy against reconstruction error under the strongest attack of one threat model ({threat.label}) on "
        "test images. A colour is a method; its strengths, beside the points, are joined by a line; plain noise is "
        "dashed. Large points: mean over seeds, bars: 95 % interval (none for one seed; a long one ends at the "
        "chart's edge); small points: single runs. Hollow: an upper limit of the error."
        + (" The axis of errors is logarithmic." if log else "")
    )
