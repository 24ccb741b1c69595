"""What z adds to a guess of the image, through the encoder: one step of Gauss and Newton, exact for a linear one."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.types import Images, Smashed

SPECTRUM_IMAGES = 2048  # that a covariance is estimated from: bounds time and memory


@dataclass(frozen=True)
class Spectrum:
    """Covariance of standardised images: U diag(λ) Uᵀ + rest · (I − U Uᵀ)."""

    basis: Float[Tensor, "pixel rank"]
    variances: Float[Tensor, " rank"]
    rest: Float[Tensor, ""]

    @classmethod
    def of(cls, images: Float[Tensor, "image pixel"]) -> "Spectrum":
        """Of centred images. Directions beyond half their number share one variance: what is left of the total."""
        _, values, directions = torch.linalg.svd(images.double(), full_matrices=False)
        count, pixels = images.shape
        rank = min(pixels, max(1, count // 2))
        variances = values.square() / count
        rest = variances[rank:].sum() / max(1, pixels - rank)
        return cls(directions[:rank].T.float().contiguous(), variances[:rank].float(), rest.float())

    def unknown(self, images: Images, time: float) -> Images:
        """C_t times images, C_t = (Σ⁻¹ + t²/(1 − t)² I)⁻¹: the covariance of Gaussian x of which x_t is known."""

        def left(variance: Tensor) -> Tensor:
            return variance * (1 - time) ** 2 / ((1 - time) ** 2 + variance * time**2)

        flat, rest = images.flatten(1), left(self.rest)
        along = (flat @ self.basis) * (left(self.variances) - rest)
        return (rest * flat + along @ self.basis.T).view_as(images)


@dataclass(frozen=True)
class Explainer:
    """Moves a guess to where it explains z: x + C Jᵀ (J C Jᵀ + σ²I)⁻¹ (z − F(x)), with J the slope of F at x.

    That is the mean of x given z where x is Gaussian around the guess with covariance C, F linear and the noise
    N(0, σ²I). encode: F, frozen. masked: a 0 in z says that the value is hidden, and nothing has to explain it.
    iterations: of conjugate gradients, for each image by itself.
    """

    encode: Callable[[Images], Smashed] | nn.Module
    noise_std: float
    masked: bool
    iterations: int

    def __call__(self, guess: Images, smashed: Smashed, unknown: Callable[[Images], Images]) -> Images:
        """Unknown: multiplies by C."""
        with torch.enable_grad():
            x = guess.detach().requires_grad_()
            clean = self.encode(x)
            weight = torch.zeros_like(clean).requires_grad_()
            (pulled,) = torch.autograd.grad(clean, x, weight, create_graph=True)  # Jᵀ · weight, linear in it
        seen = (smashed != 0).to(clean.dtype) if self.masked else torch.ones_like(smashed)

        def back(change: Smashed) -> Images:
            """C Jᵀ times a change of z."""
            return unknown(torch.autograd.grad(clean, x, seen * change, retain_graph=True)[0])

        def spread(change: Smashed) -> Smashed:
            """(J C Jᵀ + σ²I) times a change of z."""
            (ahead,) = torch.autograd.grad(pulled, weight, back(change), retain_graph=True)
            return seen * ahead + self.noise_std**2 * change

        return guess + back(solve(spread, seen * (smashed - clean.detach()), self.iterations))


def solve(matrix: Callable[[Smashed], Smashed], target: Smashed, iterations: int) -> Smashed:
    """The solution of `matrix`(x) = target by conjugate gradients from 0, for each of a batch by itself.

    One that is solved to rounding stays where it is.
    """
    solution, residual, direction = torch.zeros_like(target), target, target
    square = _inner(residual, residual)
    for _ in range(iterations):
        image = matrix(direction)
        length = _ratio(square, _inner(direction, image))
        solution, residual = solution + length * direction, residual - length * image
        before, square = square, _inner(residual, residual)
        direction = residual + _ratio(square, before) * direction
    return solution


def _inner(one: Smashed, other: Smashed) -> Float[Tensor, "batch 1 1 1"]:
    return (one * other).sum((1, 2, 3), keepdim=True)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Above / below; 0 where nothing is left to divide by."""
    return torch.where(below > torch.finfo(below.dtype).tiny, above / below, 0.0)
