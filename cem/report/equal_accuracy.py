"""What each method leaves at equal accuracy, beside plain noise and the others: tables made from rows of results alone.

The unit of repetition is the training seed. Methods are compared seed by seed, and where errors of single images are
given, these are crossed with the seeds (`crossed`). See docs/statistics.md.
"""

import math
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cem.report.front import ends, mark_front, volume_columns
from cem.report.series import PLACE, Images, Place, Series, read_series
from cem.report.statistics import LEVEL, Estimate, LogErrors, holm, over_seeds
from cem.storage.files import whole_or_absent

POINTS = (0.5, 1.0, 2.0, 5.0)  # of accuracy below the undefended network
YARDSTICK = "the yardstick"
NOTHING, UNTOLD = "buys nothing over noise", "not told apart from noise"
MORE, LESS = "leaves more error than noise", "leaves less error than noise"
SMALL_GAIN = 1.1  # factor of the error under noise: a method that cannot reach more buys nothing
_LARGEST = 700.0  # of a logarithm
_NONE = Estimate(math.nan, math.nan, 0)
Row = dict[str, Any]


class Comparisons:
    """Of rows of results, of one study or several.

    images: errors of single images by run and attack, for intervals that hold for other images, too; without them the
    intervals are over seeds alone. points: below the undefended network's accuracy, in percent points.
    """

    def __init__(self, results: pd.DataFrame, images: Images | None = None, points: tuple[float, ...] = POINTS) -> None:
        self._places = read_series(results, images)
        self._points = points

    def frames(self) -> dict[str, pd.DataFrame]:
        """All three, by name."""
        return {"equal_accuracy": self.equal_accuracy(), "paired": self.paired(), "front": self.front()}

    def equal_accuracy(self) -> pd.DataFrame:
        """One row per accuracy and method: error there (geometric mean over seeds), and its factor to plain noise's.

        p_holm: for the family of all methods at that accuracy under one threat model. verdict: in words, by p_holm;
        where there is none, why. limit: whether an error that counts, the method's or the noise's, is only an upper
        limit; own_limit: whether one of the method's is.
        """
        rows = [
            dict(zip(PLACE, key, strict=True)) | self._at(series, _plain(methods), points)
            for key, methods in self._places.items()
            for points in self._points
            for series in methods
        ]
        return _frame(_with_holm(rows, "threat_model", "points_below"))

    def paired(self) -> pd.DataFrame:
        """One row per accuracy and pair of methods that both reach it: the factor of the first one's error.

        p_holm: for the family of all pairs with plain noise, or of all others, at that accuracy under one threat
        model. doubt: why nothing can be said; empty where something may be.
        """
        rows: list[Row] = []
        for key, methods in self._places.items():
            for points in self._points:
                reached = [(one, place) for one in methods if (place := _reached(one, points)) is not None]
                for (first, mine), (second, theirs) in combinations(reached, 2):
                    if first.plain:
                        first, mine, second, theirs = second, theirs, first, mine
                    row: Row = dict(zip(PLACE, key, strict=True)) | {"points_below": points}
                    row |= {"method": first.label, "other": second.label, "with_noise": second.plain}
                    row |= _against(first, mine, second, theirs, "factor")
                    rows.append(row | {"limit": mine.limit or theirs.limit})
        found = _with_holm(rows, "threat_model", "points_below", "with_noise")
        return _frame([{name: value for name, value in row.items() if name != "with_noise"} for row in found])

    def front(self) -> pd.DataFrame:
        """One row per method and strength: accuracy, error, and its factor to plain noise's at this accuracy.

        Of each method its hypervolume, too. p_holm: for the family of all of these rows under one threat model.
        """
        rows = [
            dict(zip(PLACE, key, strict=True)) | row
            for key, methods in self._places.items()
            for series in methods
            for row in _strengths(series, _plain(methods))
        ]
        return mark_front(_frame(_with_holm(rows, "threat_model")), list(PLACE)) if rows else _frame(rows)

    def _at(self, series: Series, plain: Series | None, points: float) -> Row:
        row: Row = {"points_below": points, "method": series.label, "strength_name": series.by}
        row["strengths"] = ", ".join(f"{one:g}" for one in series.strengths)
        place, noise = _reached(series, points), None if plain is None else _reached(plain, points)
        if place is None:
            return row | _empty() | {"verdict": _why_not(series, points)}
        wanted = series.below_reference(points)
        row |= ends("accuracy", over_seeds(wanted.values())) | _error(place.errors.estimate())
        row |= {"limit": place.limit, "own_limit": place.limit}
        if series.plain:
            return row | _ratio(None) | {"verdict": YARDSTICK}
        if plain is None or noise is None:
            why = "there is no plain noise" if plain is None else f"plain noise: {_why_not(plain, points)}"
            return row | _ratio(None) | {"verdict": f"no verdict: {why}"}
        return row | _beside_noise(series, place, plain, noise)


def _beside_noise(series: Series, mine: Place, plain: Series, noise: Place) -> Row:
    """The factor to plain noise's error, and what it says in words."""
    found = _against(series, mine, plain, noise, "factor_to_noise")
    doubt = found.pop("doubt")
    words = f"no verdict: {doubt}" if doubt else _verdict(found)
    return found | {"limit": mine.limit or noise.limit, "verdict": words}


def _against(first: Series, mine: Place, second: Series, theirs: Place, name: str) -> Row:
    """The factor of two errors, and why nothing can be said of it. Errors of different images have none."""
    if len(images := mine.images | theirs.images) > 1:
        counts = " and ".join(map(str, sorted(images)))
        return _ratio(None, name) | {"doubt": f"scored on different images ({counts})"}
    factor = mine.over(theirs)
    found = _ratio(factor, name)
    doubt = ""
    if first.one_network or second.one_network:
        doubt = "one network, given"
    elif mine.chance or theirs.chance:
        doubt = "near chance"
    elif found[f"{name}_seeds"] < 2:
        doubt = "1 seed" if found[f"{name}_seeds"] else "no seed in common"
    return found | ({"p": math.nan} if doubt else {}) | {"doubt": doubt}


def _verdict(row: Row) -> str:
    """A method beside plain noise, in words, by the factor of their errors at equal accuracy.

    Of this comparison by itself: `_with_holm` says what is left of it among others.
    """
    low, high = row["factor_to_noise_low"], row["factor_to_noise_high"]
    if low <= 1 <= high:
        return _undecided(high)
    return MORE if low > 1 else LESS


def _undecided(high: float) -> str:
    """Where no difference is shown: by the upper end of the factor's interval, whether a gain worth its cost may be."""
    return NOTHING if high <= SMALL_GAIN else UNTOLD


def write_frames(frames: dict[str, pd.DataFrame], folder: str | Path) -> None:
    """Write each as CSV under its name."""
    for name, frame in frames.items():
        with whole_or_absent(Path(folder) / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.6g")


def _frame(rows: list[Row]) -> pd.DataFrame:
    """With a header even where there is no row."""
    return pd.DataFrame(rows, columns=None if rows else list(PLACE))


def _plain(methods: list[Series]) -> Series | None:
    return next((series for series in methods if series.plain), None)


def _reached(series: Series, points: float) -> Place | None:
    """Where a method has the accuracy in every seed; None where it has not in one."""
    if series.unusable:
        return None
    place = series.at(series.below_reference(points))
    return place if place.reached else None


def _why_not(series: Series, points: float) -> str:
    """Why a method has no error at an accuracy."""
    if series.unusable:
        return f"not reached: {series.unusable}"
    wanted = series.below_reference(points)
    if not wanted:
        return "not reached: no undefended network of the same seeds"
    missed = series.at(wanted).missed
    lost = 100 * (series.reference[:, None] - series.accuracy)
    weak, strong = float(np.nanmean(lost[:, 0])), float(np.nanmean(lost[:, -1]))
    part = "" if len(missed) == len(wanted) else f" in {len(missed)} of {len(wanted)} seeds"
    if len(series.strengths) == 1:
        return f"not reached{part}: its only strength loses {weak:.1f} points"
    return f"not reached{part}: it loses {weak:.1f} to {strong:.1f} points".replace("-", "\N{MINUS SIGN}")


def _strengths(series: Series, plain: Series | None) -> Iterator[Row]:
    """Rows of the front of one method."""
    about = {"method": series.label, "strength_name": series.by}
    volume = volume_columns(series, plain)
    for strength in series.strengths:
        rows = series.rows[series.rows["strength"] == strength].sort_values("seed")
        accuracy, lost = rows["accuracy"], 100 * (rows["reference_accuracy"] - rows["accuracy"])
        row: Row = about | {"strength": strength, "seeds": len(rows), "attack": ", ".join(rows["attack"].unique())}
        row |= ends("accuracy", over_seeds(accuracy)) | ends("points_lost", over_seeds(lost))
        row |= ends("mse", over_seeds(rows["mse"]))
        row["error_over_mean_image"] = float(rows["mse_ratio_to_mean_image"].mean())
        limit = bool(rows["strongest_bound"].any())
        yield row | {"limit": limit, "own_limit": limit} | _at_own(series.alone(strength), plain) | volume


def _at_own(alone: Series, plain: Series | None) -> Row:
    """One strength beside plain noise of the same accuracy, by all seeds that both have."""
    if alone.plain:
        return _ratio(None) | {"verdict": YARDSTICK}
    why = "there is no plain noise" if plain is None else ""
    why = why or alone.unusable or (plain.unusable and f"plain noise: {plain.unusable}" if plain else "")
    if plain is None or why:
        return _ratio(None) | {"verdict": f"no verdict: {why}"}
    wanted = dict(zip(alone.seeds, alone.accuracy[:, 0].tolist(), strict=True))
    noise = plain.at(wanted)
    if not noise.reached:
        return _ratio(None) | {"verdict": "no verdict: plain noise has not this accuracy in every seed"}
    return _beside_noise(alone, alone.at(wanted), plain, noise)


def _error(estimate: Estimate) -> Row:
    """A geometric mean of errors and its interval, from their logarithms."""
    return {"seeds": estimate.n} | _factors("error", estimate)


def _ratio(log: LogErrors | None, name: str = "factor_to_noise") -> Row:
    """A factor with its interval and p value; NaN where there is none."""
    estimate = _NONE if log is None else log.estimate()
    return {f"{name}_seeds": estimate.n} | _factors(name, estimate) | {"p": estimate.p_value}


def _factors(name: str, log: Estimate) -> Row:
    """What these are logarithms of; two seeds may have an interval whose end is beyond all numbers."""
    return {key: math.inf if value > _LARGEST else math.exp(value) for key, value in ends(name, log).items()}


def _empty() -> Row:
    return ends("accuracy", _NONE) | _error(_NONE) | _ratio(None) | {"limit": False, "own_limit": False}


def _with_holm(rows: list[Row], *family: str) -> list[Row]:
    """With p values for the family of all rows that are equal in these columns.

    What is told apart by its own interval alone is not told.
    """
    families: dict[tuple[Any, ...], list[int]] = {}
    for place, row in enumerate(rows):
        families.setdefault(tuple(row[name] for name in family), []).append(place)
    adjusted = [math.nan] * len(rows)
    for places in families.values():
        for place, p in zip(places, holm(rows[place]["p"] for place in places), strict=True):
            adjusted[place] = p
    found = []
    for row, p in zip(rows, adjusted, strict=True):
        by_chance = row.get("verdict") in (MORE, LESS) and p > 1 - LEVEL
        words = {"verdict": _undecided(row["factor_to_noise_high"])} if by_chance else {}
        found.append(row | words | {"p_holm": p})
    return found
