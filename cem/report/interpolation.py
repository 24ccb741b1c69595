"""The error that a method leaves at a given accuracy, between the strengths that were tried."""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator
from scipy.optimize import isotonic_regression

PerStrength = Float[np.ndarray, " strengths"]
_STEP = 1e-7  # of the largest error


def monotone(accuracy: PerStrength, errors: PerStrength) -> Callable[[float], tuple[float, PerStrength]]:
    """Of one seed's strengths, the weakest first: the error at an accuracy, and its derivatives by the errors.

    NaN where the accuracies do not span it. From the weakest strength on, accuracy falls and error rises, but for
    chance: both are made monotone by isotonic regression. Strengths that then have one accuracy are one point, at their
    mean error. Between points goes the monotone cubic of Fritsch & Carlson (PCHIP), of the errors themselves: on smooth
    curves with three strengths it was within 3.3 % of the truth, a cubic of logarithms within 6.4, lines within 12.
    """
    falling, rising = isotonic_regression(accuracy, increasing=False), isotonic_regression(errors, increasing=True)
    at, group = np.unique(falling.x, return_inverse=True)
    block = np.repeat(np.arange(len(rising.blocks) - 1), np.diff(rising.blocks))
    points = _means(group) @ _means(block)[block]  # both steps take means, so that points are linear in the errors
    values, nowhere = points @ errors, (math.nan, np.full(len(errors), math.nan))
    if len(at) == 1:
        return lambda wanted: (float(values[0]), points[0]) if wanted == at[0] else nowhere
    step = _STEP * float(values.max())
    curve = PchipInterpolator(at, np.column_stack([values, values[:, None] + step * np.eye(len(at))]))

    def place(wanted: float) -> tuple[float, PerStrength]:
        if not at[0] <= wanted <= at[-1]:
            return nowhere
        found = curve(wanted)
        return float(found[0]), (found[1:] - found[0]) / step @ points

    return place


def _means(group: Int[np.ndarray, " members"]) -> Float[np.ndarray, "groups members"]:
    """The matrix that takes the mean of each group."""
    member = (group == np.arange(group.max() + 1)[:, None]).astype(float)
    means: Float[np.ndarray, "groups members"] = member / member.sum(axis=1, keepdims=True)
    return means


def grows(accuracy: Float[np.ndarray, "seeds strengths"], errors: Float[np.ndarray, "seeds strengths"]) -> bool:
    """Whether more of the strength is more of the method (as of λ), not less (as of ε).

    By pairs of strengths, over all seeds: in most of them the stronger one has less accuracy, and leaves more error.
    """
    first, second = np.triu_indices(accuracy.shape[1], 1)
    votes = np.sign(accuracy[:, first] - accuracy[:, second]) + np.sign(errors[:, second] - errors[:, first])
    return bool(votes.sum() >= 0)
