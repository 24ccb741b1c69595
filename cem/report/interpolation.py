"""The error that a method leaves at a given accuracy, between the strengths that were tried."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

from cem.report.statistics import LogErrors, PerSeed

PerStrength = Float[np.ndarray, " strengths"]
Table = Float[np.ndarray, "seeds strengths"]
COUNTS = 1e-3  # share of the total from which on an error counts
_DIGITS = 9  # of an accuracy: means of equal ones differ in the last
_STEP = 1e-7  # of the largest error


def monotone(accuracy: PerStrength, errors: PerStrength) -> Callable[[float], tuple[float, PerStrength]]:
    """Of one seed's strengths, the weakest first: the error at an accuracy, and its derivatives by the errors.

    NaN where the accuracies do not span it. From the weakest strength on, accuracy falls and error rises, but for
    chance: both are made monotone by isotonic regression. Of strengths that then have one accuracy the strongest
    counts, since that accuracy allows for it. Between points goes the monotone cubic of Fritsch & Carlson (PCHIP), of
    the errors themselves: on smooth curves with three strengths it was within 3.3 % of the truth, a cubic of logarithms
    within 6.4, lines between logarithms within 12.
    """
    falling, rising = isotonic_regression(accuracy, increasing=False), isotonic_regression(errors, increasing=True)
    at, group = np.unique(falling.x.round(_DIGITS), return_inverse=True)
    strongest = len(group) - 1 - np.unique(group[::-1], return_index=True)[1]
    block = np.repeat(np.arange(len(rising.blocks) - 1), np.diff(rising.blocks))
    points = _means(block)[block[strongest]]  # linear in the errors
    values, nowhere = points @ errors, (math.nan, np.full(len(errors), math.nan))
    if len(at) == 1:
        return lambda wanted: (float(values[0]), points[0]) if round(wanted, _DIGITS) == at[0] else nowhere
    step = _STEP * float(values.max())
    curve = PchipInterpolator(at, np.column_stack([values, values[:, None] + step * np.eye(len(at))]))

    def place(wanted: float) -> tuple[float, PerStrength]:
        near = round(wanted, _DIGITS)
        if not at[0] <= near <= at[-1]:
            return nowhere
        found = curve(near)
        return float(found[0]), (found[1:] - found[0]) / step @ points

    return place


class Along:
    """A method along its strengths, the weakest first. errors: of each strength, seed by seed."""

    def __init__(self, accuracy: Table, errors: tuple[LogErrors, ...]) -> None:
        self._errors = errors
        self._means = np.exp(np.column_stack([one.mean for one in errors]))
        self._seeds = [monotone(*pair) for pair in zip(accuracy, self._means, strict=True)]

    def at(self, wanted: PerSeed) -> tuple[LogErrors, Table]:
        """Errors of each seed at its accuracy, and how much each strength counts; NaN where that is not spanned."""
        found = [curve(accuracy) for curve, accuracy in zip(self._seeds, wanted.tolist(), strict=True)]
        values = np.array([value for value, _ in found])
        # By so much of a strength's logarithm does that of the value move.
        share = np.array([slopes for _, slopes in found]).reshape(self._means.shape) * self._means / values[:, None]
        moved = self._errors[0].times(share[:, 0])
        for one, of_seed in zip(self._errors[1:], share.T[1:], strict=True):
            moved = moved.plus(one, of_seed)
        return LogErrors(np.log(values), moved.share), share


def _means(group: Int[np.ndarray, " members"]) -> Float[np.ndarray, "groups members"]:
    """The matrix that takes the mean of each group."""
    member = (group == np.arange(group.max() + 1)[:, None]).astype(float)
    means: Float[np.ndarray, "groups members"] = member / member.sum(axis=1, keepdims=True)
    return means


def grows(accuracy: Table, errors: Table) -> bool:
    """Whether more of the strength is more of the method (as of λ), not less (as of ε).

    By pairs of strengths, over all seeds: in most of them the stronger one has less accuracy, and leaves more error.
    """
    first, second = np.triu_indices(accuracy.shape[1], 1)
    votes = np.sign(accuracy[:, first] - accuracy[:, second]) + np.sign(errors[:, second] - errors[:, first])
    return bool(votes.sum() >= 0)
