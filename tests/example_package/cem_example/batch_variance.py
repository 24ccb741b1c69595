"""Variance of the batch as a surrogate."""

import math

import torch

from cem.surrogates import Given, Surrogate, Terms
from cem.surrogates.base import NOISE_VARIANCE_FLOOR, intra_class_mse
from cem.types import Labels, Smashed
from cem_example.settings import BatchVariance


class BatchVarianceSurrogate(Surrogate):
    """½ log(1 + v / σ²), the capacity of a Gaussian channel, averaged over dimensions. No bound for other shapes."""

    def __init__(self, cfg: BatchVariance, given: Given) -> None:
        super().__init__()
        self.noise_std = given.noise_std

    def take_noise(self, noise_std: float) -> None:
        """σ as it is now: that of `vib` is learned."""
        self.noise_std = noise_std

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch of clean ẑ."""
        variance = smashed.flatten(1).var(0, correction=0)
        loss = 0.5 * torch.log1p(variance / max(self.noise_std**2, NOISE_VARIANCE_FLOOR)).mean()
        leakage = loss.detach() * len(variance) if self.noise_std > 0 else torch.full_like(loss.detach(), math.inf)
        return Terms(loss, leakage, intra_class_mse(smashed, labels))
