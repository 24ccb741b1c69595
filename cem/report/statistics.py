"""Intervals: what numbers of a few training seeds, scored on the same test images, say of other seeds and images.

Images of a run share its training, so that their standard error is not the spread: seeds moved errors by 5 to 20 of it.
Seeds share the test images, so that the spread of seed means is not all of it either.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.optimize import brentq
from scipy.special import stdtrit

LEVEL = 0.95
NEAR_CHANCE = 3  # standard errors
SMALLEST_P = 1e-20  # that is told; smaller ones are beyond what Student's t is known for
PerSeed = Float[np.ndarray, " seeds"]
PerImage = Float[np.ndarray, "seeds images"]


@dataclass(frozen=True)
class Part:
    """A part of what is not known of a mean: its standard error, and the degrees of freedom of that."""

    error: float
    freedom: float


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` seeds and half the width of its 95 % interval: NaN where there is none (one seed, infinities).

    parts: what the interval is made of; none without one.
    """

    mean: float
    half: float
    n: int
    parts: tuple[Part, ...] = ()

    @property
    def low(self) -> float:
        """Lower end of the interval; NaN without one."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval; NaN without one."""
        return self.mean + self.half

    @property
    def p_value(self) -> float:
        """Of a mean of 0, against both sides: 1 minus the level of the interval that ends there; NaN without one."""
        if math.isnan(self.half):
            return math.nan
        if self.half == 0:
            return 1.0 if self.mean == 0 else 0.0

        def beyond(tail: float) -> float:
            return _half_width(self.parts, math.exp(tail)) - abs(self.mean)

        least, most = math.log(SMALLEST_P / 2), math.log(0.5)  # of the tail on one side
        return 2 * math.exp(brentq(beyond, least, most)) if beyond(least) > 0 else SMALLEST_P

    def percent_text(self) -> str:
        """`mean ± half` of a part, in percent."""
        return Estimate(100 * self.mean, 100 * self.half, self.n).text(4)

    def text(self, digits: int = 3) -> str:
        """`mean ± half`, the larger to so many significant digits; the mean alone for one seed; – for none."""
        if math.isnan(self.mean):
            return "–"
        if math.isinf(self.mean):
            return "∞" if self.mean > 0 else "−∞"
        largest = max(abs(self.mean), 0.0 if math.isnan(self.half) else self.half)
        decimals = min(6, max(0, digits - 1 - math.floor(math.log10(largest)))) if largest > 0 else digits - 1
        shown = round(self.mean, decimals) + 0.0  # a mean that rounds to 0 has no sign
        mean = f"{shown:.{decimals}f}".replace("-", "−")
        return mean if math.isnan(self.half) else f"{mean}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{self.half:.{decimals}f}"

    def factor_text(self) -> str:
        """Of a mean of logarithms: the factor and its interval, such as `1.50 [1.21, 1.86]`.

        With more digits where it is surely not 1, and would read as 1.
        """
        ends, digits = (self.mean, self.low, self.high), 2
        if self.low > 0 or self.high < 0:
            while digits < 6 and any(abs(math.expm1(value)) < 0.5 * 10**-digits for value in ends):
                digits += 1
        factor, low, high = (f"{math.exp(value):.{digits}f}" for value in ends)
        return factor if math.isnan(self.half) else f"{factor} [{low}, {high}]"


def over_seeds(values: Iterable[float]) -> Estimate:
    """Mean of one number per seed (NaNs left out), and Student's t interval with n − 1 degrees of freedom."""
    kept = [float(value) for value in values if not math.isnan(value)]
    if not kept:
        return Estimate(math.nan, math.nan, 0)
    mean = float(np.mean(kept))
    if len(kept) == 1 or not math.isfinite(mean):
        return Estimate(mean, math.nan, len(kept))
    part = Part(float(np.std(kept, ddof=1)) / math.sqrt(len(kept)), len(kept) - 1.0)
    return Estimate(mean, _half_width((part,)), len(kept), (part,))


def crossed(values: PerImage) -> Estimate:
    """Mean of a number that every seed has of the same images, for other seeds *and* other images.

    Its variance is that of the seed means, over the seeds, plus that of what the seeds share, the choice of images:
    (image mean square − residual mean square) / (seeds · images), where positive. For the interval see `_half_width`.
    Source: analysis of variance of a two-way table with random effects and one number a cell.
    """
    seeds, images = values.shape
    estimate = over_seeds(values.mean(axis=1))
    if math.isnan(estimate.half) or images < 2:
        return estimate
    own_seed, own_image = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    residual = values - own_seed - own_image + estimate.mean
    of_images = seeds * float(((own_image - estimate.mean) ** 2).sum()) / (images - 1)
    of_rest = float((residual**2).sum()) / ((seeds - 1) * (images - 1))
    shared = max(of_images - of_rest, 0.0) / (seeds * images)
    parts = (*estimate.parts, Part(math.sqrt(shared), images - 1.0))
    return Estimate(estimate.mean, _half_width(parts), seeds, parts)


def holm(p_values: Iterable[float]) -> list[float]:
    """Each p value for the family of all (Holm, Scandinavian Journal of Statistics 6 (1979) 65); NaNs stand aside."""
    given = list(p_values)
    ordered = sorted((p, place) for place, p in enumerate(given) if not math.isnan(p))
    found, largest = [math.nan] * len(given), 0.0
    for rank, (p, place) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * p))
        found[place] = largest
    return found


def p_text(p: float) -> str:
    """`0.031`, `< 0.001`; – where there is none."""
    if math.isnan(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def near_chance(row: "pd.Series[Any]") -> bool:
    """Whether a row's accuracy is within three standard errors of always naming the most frequent class."""
    share = float(row["majority_accuracy"])
    error = math.sqrt(share * (1 - share) / row["test_images"])
    return bool(row["accuracy"] <= share + NEAR_CHANCE * error)


@dataclass(frozen=True)
class LogErrors:
    """Logarithms of mean errors, one per seed, with each image's part in them. So are sums and multiples of these.

    mean: log of a seed's mean error. share: an image's error over its seed's mean, minus 1: by so much of 1/n does the
    log move with the image (its influence). None where seeds are scored on different images.
    """

    mean: PerSeed
    share: PerImage | None

    @classmethod
    def of(cls, errors: list[Float[np.ndarray, " images"]]) -> "LogErrors":
        """Of each seed's errors, all above 0."""
        means = np.array([float(one.mean()) for one in errors])
        same = len({len(one) for one in errors}) == 1
        return cls(np.log(means), np.stack(errors) / means[:, None] - 1 if same else None)

    def __sub__(self, other: "LogErrors") -> "LogErrors":
        return self.plus(other, np.full(len(self.mean), -1.0))

    def __neg__(self) -> "LogErrors":
        return self.times(np.full(len(self.mean), -1.0))

    def plus(self, other: "LogErrors", weight: PerSeed) -> "LogErrors":
        """These plus so many times the others, seed by seed."""
        either = self.share is None or other.share is None or self.share.shape != other.share.shape
        share = None if either else self.share + weight[:, None] * other.share
        return LogErrors(self.mean + weight * other.mean, share)

    def times(self, weight: PerSeed) -> "LogErrors":
        """These times a number per seed."""
        return LogErrors(self.mean * weight, None if self.share is None else self.share * weight[:, None])

    def rows(self, rows: list[int]) -> "LogErrors":
        """Of these seeds alone, by their places."""
        return LogErrors(self.mean[rows], None if self.share is None else self.share[rows])

    def estimate(self) -> Estimate:
        """Of the mean over seeds, images crossed with them where they share these."""
        return over_seeds(self.mean) if self.share is None else crossed(self.mean[:, None] + self.share)


def _half_width(parts: tuple[Part, ...], tail: float = (1 - LEVEL) / 2) -> float:
    """Half an interval, of which so much of the probability lies on either side.

    With one part that counts it is Student's. With two it is the mean of two approximations, of which Howe's (JASA 69
    (1974) 789) holds too often and Satterthwaite's (Biometrics Bulletin 2 (1946) 110) not often enough when seeds are
    few: it holds the mean in 94 to 97 of 100 repetitions (tests/unit/report/test_statistics.py). It is never narrower
    than that of one part alone: what is less known has no smaller interval.
    """
    counted = [part for part in parts if part.error > 0]
    if not counted:
        return 0.0
    howe = math.hypot(*(_quantile(tail, part.freedom) * part.error for part in counted))
    if len(counted) == 1:
        return howe
    total = math.hypot(*(part.error for part in counted))
    freedom = 1 / sum((part.error / total) ** 4 / part.freedom for part in counted)
    alone = max(_quantile(tail, part.freedom) * part.error for part in counted)
    return max(alone, (howe + _quantile(tail, freedom) * total) / 2)


def _quantile(tail: float, freedom: float) -> float:
    """What Student's t exceeds with this probability."""
    return -float(stdtrit(freedom, tail))
