"""The least mean squared error of an image that is linear in z, from moments of clean ẑ."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RIDGES = (0.0, *(10.0**power for power in range(-8, 3)))  # in parts of the mean variance of a dimension of ẑ
_NOTHING = 1e-12  # of the largest variance, and of ẑ's mean square a hundredth of it: what varies less is rounding


@dataclass(frozen=True)
class Moments:
    """Means of ẑ and of the image x, their covariances, and the variance of x summed over its numbers; float64."""

    count: int
    z: Float[Tensor, " d"]
    x: Float[Tensor, " pixels"]
    zz: Float[Tensor, "d d"]
    zx: Float[Tensor, "d pixels"]
    xx: Float[Tensor, ""]

    @classmethod
    def of(cls, chunks: Iterable[tuple[Float[Tensor, "rows d"], Float[Tensor, "rows pixels"]]]) -> "Moments":
        """From one pass over chunks of clean ẑ and images, not all empty."""
        count, sums, origin = 0, [torch.zeros((), dtype=torch.float64)] * 5, None
        for part in chunks:
            z, x = (values.double() for values in part)
            origin = origin or (z.mean(0), x.mean(0))  # sums about it lose no digits to the mean
            z, x = z - origin[0], x - origin[1]
            count += len(z)
            news = (z.sum(0), x.sum(0), z.T @ z, z.T @ x, x.square().sum())
            sums = [total.to(new.device) + new for total, new in zip(sums, news, strict=True)]
        assert origin is not None
        z, x, zz, zx, xx = (total / count for total in sums)
        zz, zx = zz - torch.outer(z, z), zx - torch.outer(z, x)
        return cls(count, z + origin[0], x + origin[1], zz, zx, xx - x @ x)


@dataclass(frozen=True)
class LinearError:
    """Squared error for each number of an image, in the mean over images and noise.

    least: of the linear estimate, on images it was not fitted to. low: on those it was fitted to, without a ridge,
    which is below the least linear error in expectation; None where there are too few images for it to say anything.
    ridge: what was chosen, in parts of the mean variance of ẑ.
    """

    least: float
    low: float | None
    ridge: float


def linear_error(fitted: Moments, chosen: Moments, scored: Moments, noise_std: float) -> LinearError:
    """The error of E[x] + Cov(x, ẑ) (Cov(ẑ) + σ²I + ridge)⁻¹ (z − E[ẑ]) at z = ẑ + ε, with ε added in closed form.

    fitted: moments that the estimate is made of; chosen: those that the ridge is chosen on; scored: those of `least`.
    Without a ridge this is the least error that a linear estimate has on `fitted`. What does not vary tells nothing.
    Source: docs/theory.md, "The linear least error".
    """
    values, vectors = torch.linalg.eigh(fitted.zz)
    values = values.clamp_min(0)  # rounding leaves eigenvalues of 0 a little below it
    turned = vectors.T @ fitted.zx
    floor = _NOTHING * max(float(values.max()), 0.01 * float(fitted.z.square().mean()))

    def shrunk(ridge: float) -> Float[Tensor, " d"]:
        total = values + noise_std**2 + ridge * values.mean()
        return torch.where(values > floor, 1 / total, 0.0)

    def quadratic_form(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
        """Of the error as a function of the scales: constant − 2 linear · scale + scaleᵀ quadratic scale."""
        dz, dx = moments.z - fitted.z, moments.x - fitted.x
        zz = vectors.T @ (moments.zz + torch.outer(dz, dz)) @ vectors
        zz.diagonal().add_(noise_std**2)
        zx = vectors.T @ (moments.zx + torch.outer(dz, dx))
        return moments.xx + dx @ dx, (turned * zx).sum(1), zz * (turned @ turned.T)

    def error(form: tuple[Tensor, Tensor, Tensor], ridge: float) -> float:
        constant, linear, quadratic = form
        scale = shrunk(ridge)
        return float(constant - 2 * linear @ scale + scale @ quadratic @ scale) / len(fitted.x)

    on_chosen = quadratic_form(chosen)
    ridge = min(RIDGES, key=lambda ridge: error(on_chosen, ridge))
    enough = fitted.count > len(fitted.z) + 1
    low = float(fitted.xx - turned.square().sum(1) @ shrunk(0.0)) / len(fitted.x) if enough else None
    return LinearError(error(quadratic_form(scored), ridge), low, ridge)
