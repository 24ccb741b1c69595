"""The broad component that keeps one outlier from deciding a bound."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

WEIGHT = 1e-3  # costs an image 0.001 nats, and an outlier log 1000 = 7 beside what the broad density itself says


@dataclass(frozen=True)
class Background:
    """A multivariate Cauchy density, with the mean and the variances of all private ẑ as location and scales.

    It is a mixture of Gaussians of all widths, so what an outlier costs grows with the logarithm of its distance.
    """

    centre: Float[Tensor, " d"]
    variances: Float[Tensor, " d"]

    @classmethod
    def of(cls, chunks: Iterable[tuple[Tensor, Tensor]]) -> "Background":
        """From one pass over chunks (samples [n, d], labels), not all empty. Source: Chan, Golub & LeVeque 1979."""
        total, centre, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for smashed, _ in chunks:
            if not len(smashed):
                continue
            points, before = smashed.double(), total
            total, mean = total + len(points), points.mean(0)
            step = mean - centre
            # A chunk's own squares, and what its mean adds: no difference of large squares.
            squares = squares + (points - mean).square().sum(0) + step.square() * (len(points) * before / total)
            centre = centre + step * (len(points) / total)
        return cls(centre, squares / total)

    def log_density(self, z: Float[Tensor, "n d"], noise_std: float) -> Float[Tensor, " n"]:
        """In nats per image, in float64: log Γ(½(d + 1)) − log Γ(½) − ½ Σ log(π s) − ½(d + 1) log(1 + Σ x²/s).

        s = variance + σ², above zero. Source: the multivariate t with one degree of freedom (Kotz & Nadarajah 2004).
        """
        scales = self.variances + noise_std**2
        d = len(scales)
        constant = math.lgamma(0.5 * (d + 1)) - math.lgamma(0.5) - 0.5 * float((math.pi * scales).log().sum())
        distance = (z.double() - self.centre).square() @ scales.reciprocal()
        return constant - 0.5 * (d + 1) * torch.log1p(distance)
