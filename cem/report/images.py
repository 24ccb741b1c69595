"""Originals above what the strongest attack on each group made of them: the first ones, and the worst protected."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from matplotlib.axes import Axes

from cem.planning.plan import Plan
from cem.report.groups import Group
from cem.report.inputs import read_reconstructions
from cem.report.pictures import Picture, finish, new_figure
from cem.report.threat import ThreatModel

GAP = 2  # white pixels between images
PER_LINE = 10


def reconstruction_grids(
    plan: Plan, groups: list[Group], results: pd.DataFrame, threat: ThreatModel, suffix: str
) -> list[Picture]:
    """Two pictures per data set, of the first and the worst protected test images: a row per group, of its first seed.

    Under one threat model, whose pictures' names end with `suffix`. None where every attack failed on every first seed.
    """
    pictures = []
    for dataset in plan.datasets:
        headlines = {one.label: one.headline(results, threat) for one in groups if one.first.dataset.id == dataset}
        shown = [one for one in groups if one.first.seed in headlines.get(one.label, pd.DataFrame()).index]
        best = [headlines[one.label].loc[[one.first.seed]].iloc[0] for one in shown]
        for choice in (FIRST, WORST) if shown else ():
            rows = [_row(plan, group, row, choice) for group, row in zip(shown, best, strict=True)]
            about = f"{dataset}, {threat.label}: {choice.caption}"
            pictures.append(_grid(rows, choice, about, f"{choice.name}{suffix}_{dataset}"))
    return pictures


@dataclass(frozen=True)
class _Choice:
    """Which of the kept test images a picture shows. place: in reconstructions.h5."""

    place: str
    name: str
    title: str
    caption: str


FIRST = _Choice("infer", "reconstructions", "original test images", "the first test images")
WORST = _Choice(
    "infer/worst",
    "worst_protected",
    "original test images, worst protected first",
    "the test images that are protected worst, the one with the lowest MSE first",
)
Row = tuple[str, UInt8[np.ndarray, "n c h w"], UInt8[np.ndarray, "n c h w"]]


def _row(plan: Plan, group: Group, best: "pd.Series[Any]", choice: _Choice) -> Row:
    pairs = read_reconstructions(plan, group.first, best["attack"], choice.place, plan.study.report.images)
    limits = ("≤ ", "≥ ") if best["strongest_bound"] else ("", "")
    scores = f"MSE {limits[0]}{best['mse']:.4f}, SSIM {limits[1]}{best['ssim']:.3f}"
    return (f"{group.label}  ·  {best['attack']}  ·  {scores}", *pairs)


def _grid(rows: list[Row], choice: _Choice, about: str, name: str) -> Picture:
    originals = rows[0][1]
    same = all(np.array_equal(images, originals) for _, images, _ in rows)
    strips = [(choice.title, originals)] if same else []
    for title, images, reconstructions in rows:
        strips += [] if same else [(f"{choice.title} ({title.partition('  ·  ')[0]})", images)]
        strips.append((title, reconstructions))
    lines = -(-len(originals) // PER_LINE)
    height = min(10 / min(len(originals), PER_LINE), 1.25) * lines
    figure = new_figure(10.0, (height + 0.3) * len(strips))
    for axes, (title, images) in zip(np.ravel(figure.subplots(len(strips), 1)), strips, strict=True):
        _show(axes, title, images)
    caption = (
        f"{about}, and what the strongest attack on each group rebuilds of them (first seed of the group). MSE and "
        "SSIM are means over all scored test images of that run, not only those shown. Pixels are enlarged without "
        "smoothing."
    )
    return finish(figure, name, "png", caption)


def _show(axes: Axes, title: str, images: UInt8[np.ndarray, "n c h w"]) -> None:
    axes.imshow(strip(images), interpolation="nearest")
    axes.set_anchor("W")
    axes.set_title(title, fontsize=9, fontweight="normal", pad=3)
    axes.set_axis_off()


def strip(images: UInt8[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "high wide 3"]:
    """Images side by side in colour, PER_LINE in a line, with white gaps."""
    columns = min(len(images), PER_LINE)
    missing = -len(images) % columns
    padded = np.pad(images, ((0, missing), (0, 0), (0, GAP), (0, GAP)), constant_values=255)
    colour = np.broadcast_to(padded, (len(padded), 3, *padded.shape[2:]))
    lines = [np.concatenate(list(colour[start : start + columns]), axis=2) for start in range(0, len(colour), columns)]
    return np.concatenate(lines, axis=1).transpose(1, 2, 0)
