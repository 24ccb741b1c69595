"""Noise of one size in every number: the channel between client and server."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cem.defenses.channel import NotApplicable, Observed
from cem.types import Smashed


def standard_normal(like: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """Draws from N(0, 1), one for each number of `like`. The generator is on its device."""
    return torch.randn(like.shape, generator=generator, device=like.device, dtype=like.dtype)


@dataclass(frozen=True)
class GaussianNoise:
    """z = ẑ + σ N(0, I). Source: docs/theory.md, "The defences"."""

    noise_std: float

    @property
    def gaussian_std(self) -> float:
        return self.noise_std

    @property
    def white_std(self) -> float:
        return self.noise_std

    def stds(self, clean: Smashed) -> Smashed:
        return torch.full_like(clean, self.noise_std)

    def unit(self, clean: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        return standard_normal(clean, generator)

    def send(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        if self.noise_std == 0:
            return clean
        return clean + self.noise_std * self.unit(clean, generator)

    def observe(self, clean: Float[Tensor, "n d"], unit: Float[Tensor, "n d"]) -> Observed:
        z = clean.double() + self.noise_std * unit.double()
        return Observed(z, -0.5 * (unit.double().square() + math.log(2 * math.pi * self.noise_std**2)).sum(1))

    def log_densities(self, z: Float[Tensor, "n d"], clean: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        gap = torch.cdist(z.double(), clean.double(), compute_mode="donot_use_mm_for_euclid_dist")
        constant = z.shape[1] * math.log(2 * math.pi * self.noise_std**2)
        return -0.5 * ((gap / self.noise_std).square() + constant)

    def entropy(self, clean: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        nats = -math.inf
        if self.noise_std > 0:
            nats = 0.5 * clean.shape[1] * math.log(2 * math.pi * math.e * self.noise_std**2)
        return torch.full((len(clean),), nats, dtype=torch.float64, device=clean.device)

    def sized(self, noise_std: float) -> "GaussianNoise":
        return replace(self, noise_std=noise_std)

    def mean_of(self, n: int) -> "GaussianNoise":
        return self.sized(self.noise_std / n**0.5)


_NOT_GAUSSIAN = NotApplicable("the noise is Laplace's; this is computed for Gaussian noise")


@dataclass(frozen=True)
class LaplaceNoise:
    """z = ẑ + Laplace(b) in every number, with b = noise_std/√2 > 0. Source: docs/theory.md, "The defences"."""

    noise_std: float

    @property
    def gaussian_std(self) -> NotApplicable:
        return _NOT_GAUSSIAN

    @property
    def white_std(self) -> float:
        return self.noise_std

    def stds(self, clean: Smashed) -> Smashed:
        return torch.full_like(clean, self.noise_std)

    def unit(self, clean: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        # The difference of two exponential draws; a logarithm of a uniform one is infinite where that is 0.
        one, other = (torch.empty_like(clean).exponential_(generator=generator) for _ in range(2))
        return (one - other) / math.sqrt(2)

    def send(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        return clean + self.noise_std * self.unit(clean, generator)

    def observe(self, clean: Float[Tensor, "n d"], unit: Float[Tensor, "n d"]) -> Observed:
        z = clean.double() + self.noise_std * unit.double()
        return Observed(z, -(math.sqrt(2) * unit.double().abs() + self._log_width).sum(1))

    def log_densities(self, z: Float[Tensor, "n d"], clean: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        gap = torch.cdist(z.double(), clean.double(), p=1)
        return -gap * math.sqrt(2) / self.noise_std - z.shape[1] * self._log_width

    def entropy(self, clean: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        nats = clean.shape[1] * (1 + self._log_width)
        return torch.full((len(clean),), nats, dtype=torch.float64, device=clean.device)

    def sized(self, noise_std: float) -> "LaplaceNoise":
        return replace(self, noise_std=noise_std)

    def mean_of(self, n: int) -> "LaplaceNoise | NotApplicable":
        return self if n == 1 else NotApplicable(f"the mean of {n} draws of Laplace's noise has no simple density")

    @property
    def _log_width(self) -> float:
        return math.log(math.sqrt(2) * self.noise_std)  # log 2b
