"""Theorem 1's floor under the error of any attack, from a bound on the entropy of the images: a curve, no guarantee."""

import math
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, UInt8
from matplotlib.ticker import LogFormatter

from cem.config import Dataset
from cem.planning.plan import Plan
from cem.report.groups import Group
from cem.report.looks import looks_of
from cem.report.pictures import Picture, finish, new_figure
from cem.report.scores import Scores
from cem.report.statistics import over_seeds
from cem.report.threat import ThreatModel
from cem.storage.hdf5 import DatasetReader, open_dataset

MOST_IMAGES = 2000  # of private, and of test: a second of work
_EDGES = np.array([1, 3, 7, 15, 31, 63])  # of what the neighbours differ by
_LEVELS = 18  # of the value that the neighbours suggest: 0, 255, and 16 between
_REGION = np.digitize(np.arange(3 * 255 + 1), _EDGES)  # of each sum of differences: which of them
_LEVEL = np.concatenate([[0], 1 + np.arange(1, 255) // 16, [_LEVELS - 1]])  # of each suggested value: which of them
_SMOOTH = 0.05  # counted for each value that a context did not have


def error_floor(entropy: float, nats: float, pixels: int) -> float:
    """exp(2 (h(x) − I)/d_x) / (2πe). entropy: h(x)/d_x; nats: I of an image of d_x = `pixels` numbers. Theorem 1."""
    return math.exp(2 * (entropy - nats / pixels)) / (2 * math.pi * math.e)


def image_entropy(private: UInt8[np.ndarray, "n c h w"], test: UInt8[np.ndarray, "m c h w"]) -> float:
    """An upper bound on h(x)/d_x in nats, x in [0, 1] with the rounding to 8 bits as uniform noise.

    The mean code length of test under a model of each number given those above and left of it and the channels before
    it, fitted to private, less log 255. A worse model gives a larger bound. Source: docs/theory.md, "The error bound".
    """
    contexts = private.shape[1] * (len(_EDGES) + 1) * _LEVELS
    context, surprise = _coded(private)
    counts = np.bincount(256 * context + surprise, minlength=256 * contexts).reshape(contexts, 256)
    code = np.log((counts + _SMOOTH) / (counts + _SMOOTH).sum(1, keepdims=True))
    context, surprise = _coded(test)
    return -float(code[context, surprise].mean()) - math.log(255)


def read_entropy(plan: Plan, dataset: Dataset) -> float:
    """`image_entropy` of a data set, from some images of all its parts."""

    def some(reader: DatasetReader, split: str) -> UInt8[np.ndarray, "n c h w"]:
        stored = reader.dataset(f"{split}/images")
        return np.asarray(stored[:: -(-len(stored) // MOST_IMAGES)])

    with open_dataset(plan.data(dataset)) as reader:
        return image_entropy(some(reader, "private"), some(reader, "test"))


def floor_picture(
    groups: list[Group],
    shown: list[Group],
    results: pd.DataFrame,
    threat: ThreatModel,
    scores: Scores,
    shapes: dict[str, tuple[float, int]],
    name: str,
) -> Picture | None:
    """Theorem 1's floor against the upper bound on the leakage, and the groups' strongest attacks above it, each with
    its sandwich: a bar from the lower bound on its leakage to the upper one.

    shown: the groups that are named. shapes: of each data set's id a bound on h(x)/d_x, and d_x. None where no group
    has a finite leakage and an attack.
    """
    points, lower, undrawn = [], {}, []
    for index, group in enumerate(groups):
        rows = group.headline(results, threat)
        if not rows.empty and np.isfinite(rows["leakage_nats"].astype(float)).all():
            points.append((over_seeds(rows["leakage_nats"]).mean, scores.estimate(rows, "mse").mean, index, group))
            if not group.masked and rows["leakage_lower_nats"].notna().all():
                lower[index] = max(0.0, over_seeds(rows["leakage_lower_nats"]).mean)
        elif group in shown:
            undrawn.append(group.label)
    if not points:
        return None
    figure = new_figure(8.2, max(3.8, 0.25 * len(shown) + 1.2))
    axes = figure.add_subplot()
    nats = np.linspace(0, 1.15 * max(point[0] for point in points), 60)
    datasets = {point[3].first.dataset.id: point[3].first.dataset.name for point in points}
    for place, (dataset, called) in enumerate(datasets.items()):
        entropy, pixels = shapes[dataset]
        floor = [error_floor(entropy, one, pixels) for one in nats]
        axes.plot(nats, floor, color="#555555", linestyle=("-", "--", ":")[place % 3], label=f"floor, {called}")
    looks = looks_of(groups)
    for leakage, error, index, group in points:
        hue, mark = looks[group.label].colour, looks[group.label].marker
        style: Any = {"color": hue, "marker": mark, "linestyle": "none"}
        axes.plot(leakage, error, **style, label=group.label if group in shown else None)
        if index in lower:
            axes.plot([lower[index], leakage], [error, error], color=hue, linewidth=1.2, alpha=0.6)
            axes.plot(lower[index], error, color=hue, marker="|", markersize=9)
    axes.set_yscale("log")
    axes.margins(y=0.12)
    # The usual formatter writes formulas, which the report's look does not draw.
    axes.yaxis.set_major_formatter(LogFormatter())
    axes.yaxis.set_minor_formatter(LogFormatter())
    axes.set_xlabel("leakage, nats: from the lower bound (|) to the upper one (marker)")
    axes.set_ylabel("MSE, Infer")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    least = min(
        error / error_floor(shapes[group.first.dataset.id][0], leakage, shapes[group.first.dataset.id][1])
        for leakage, error, _, group in points
    )
    caption = (
        "Leakage against attained error: of each row a bar from the lower bound on its leakage, where one is measured, "
        "to the upper one, at the error of its strongest attack; and Theorem 1's floor under the error of any attack, "
        "by the upper bound (curve). No guarantee: "
        "the entropy of the images is not known, and the curve is drawn with an upper bound on it, which puts it too "
        "high. "
    )
    times = f"{float(f'{least:.2g}'):,g}"
    caption += f"Even so it is {times} times below the nearest attack." if least > 1 else "Some attacks lie below it."
    if undrawn:
        caption += f" Not drawn, with no finite leakage (no noise) or no attack that counts: {', '.join(undrawn)}."
    ranges = {index: f"{low:.3g} to " for index, low in lower.items()}
    told = (
        f"{group.label}: {ranges.get(index, 'at most ')}{leakage:.3g} nats, MSE {error:.3g}"
        for leakage, error, index, group in points
    )
    return finish(
        figure, name, "svg", caption, f"Chart of leakage against MSE above a falling floor. {'; '.join(told)}."
    )


def _coded(images: UInt8[np.ndarray, "n c h w"]) -> tuple[Int[np.ndarray, " number"], Int[np.ndarray, " number"]]:
    """Of each number the context, and how far it is from what its neighbours suggest, modulo 256.

    The suggestion is the median edge detector of LOCO-I (Weinberger, Seroussi & Sapiro 2000), plus what the channel
    before is off by. No number depends on itself or on later ones, so the numbers' code lengths add up to an image's.
    """
    values = images.astype(np.int16)
    padded = np.pad(values, ((0, 0), (0, 0), (1, 0), (1, 0)))
    left, above, corner = padded[:, :, 1:, :-1], padded[:, :, :-1, 1:], padded[:, :, :-1, :-1]
    low, high = np.minimum(left, above), np.maximum(left, above)
    suggested = np.where(corner >= high, low, np.where(corner <= low, high, left + above - corner))
    off = np.zeros_like(values)
    off[:, 1:] = (values - suggested)[:, :-1]
    suggested = np.clip(suggested + off, 0, 255)
    unrest = np.abs(left - corner) + np.abs(above - corner) + np.abs(off)
    channel = np.arange(values.shape[1])[:, None, None]
    context = (channel * (len(_EDGES) + 1) + _REGION[unrest]) * _LEVELS + _LEVEL[suggested]
    return context.ravel(), ((values - suggested) % 256).ravel()
