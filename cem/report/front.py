"""The privacy–utility front: what no other run is better than in accuracy and error at once, and its hypervolume."""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from cem.report.series import Series
from cem.report.statistics import Estimate, over_seeds

Points = Float[np.ndarray, "points 2"]


def hypervolume(points: Points, reference: tuple[float, float]) -> float:
    """Area that points leave behind, down to a reference point; more of both coordinates is better.

    Points that are not above the reference point in both add nothing.
    """
    area, height = 0.0, reference[1]
    ordered = points[np.argsort(-points[:, 0], kind="stable")]
    for x, y in ordered[ordered[:, 0] > reference[0]]:
        if y > height:
            area += float((x - reference[0]) * (y - height))
            height = float(y)
    return area


def on_front(points: Points) -> Bool[np.ndarray, " points"]:
    """Whether no other point is at least as good in both coordinates and better in one."""
    no_less = np.all(points[None] >= points[:, None], axis=2)
    better = np.any(points[None] > points[:, None], axis=2)
    return np.asarray(~np.any(no_less & better, axis=1))


def volumes(series: Series) -> dict[int, float]:
    """Seed → the hypervolume of a method's strengths, as a part of the whole, from 0 to 1.

    The coordinates are accuracy and error over that of answering with the mean image. The reference point is the
    accuracy of always naming the most frequent class, and an error of 0; the whole goes to an accuracy of 1 and the
    error of the mean image, which counts as 1 where more is left.
    """
    accuracy, errors = series.accuracy, np.minimum(series.table("mse_ratio_to_mean_image"), 1.0)
    chance = series.table("majority_accuracy")[:, 0]
    found = {}
    for seed, *points, least in zip(series.seeds, accuracy, errors, chance, strict=True):
        if not np.isnan(points).any() and least < 1:
            found[seed] = hypervolume(np.column_stack(points), (float(least), 0.0)) / (1 - float(least))
    return found


def volume_columns(series: Series, plain: Series | None) -> dict[str, Any]:
    """Hypervolume of a method, and how much it is above that of plain noise, each with its interval over seeds."""
    own, noise = volumes(series), {} if plain is None or series.plain else volumes(plain)
    above = over_seeds(own[seed] - noise[seed] for seed in own if seed in noise)
    columns = {"hypervolume": over_seeds(own.values()), "hypervolume_above_noise": above}
    found = {key: value for name, one in columns.items() for key, value in ends(name, one).items()}
    return found | {f"{name}_seeds": one.n for name, one in columns.items()}


def ends(name: str, estimate: Estimate) -> dict[str, float]:
    """A mean and its interval as columns."""
    return {name: estimate.mean, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def mark_front(rows: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """With a column `on_front`: whether a row's means are on the front of all rows of its group.

    yes; no; or, where its error is only an upper limit and no sure row is better, not known. An upper limit puts no
    other row off the front.
    """
    found = dict.fromkeys(rows.index, "no")
    for _, members in rows.groupby(by, sort=False):
        points = members[["accuracy", "error_over_mean_image"]].dropna()
        sure = points[~members.loc[points.index, "own_limit"].astype(bool)]
        for place in points.index:
            beside = sure.drop(index=place, errors="ignore").to_numpy(float)
            if on_front(np.vstack([points.loc[place].to_numpy(float), beside]))[0]:
                found[place] = "yes" if place in sure.index else "not known"
    return rows.assign(on_front=list(found.values()))
