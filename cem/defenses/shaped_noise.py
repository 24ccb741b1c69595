"""Gaussian noise with another size in each number of z, under a budget."""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.config import ShapedNoise
from cem.defenses.base import Mechanism, Shape
from cem.defenses.channel import NotApplicable, Observed
from cem.defenses.noise import standard_normal
from cem.types import Smashed

_MEMORY = 0.99  # weight of the squared gradients before the last batch
_DAMPING = 0.01  # of the mean information, beside each number's own: one that the loss ignores gets no infinite share

_NOT_WHITE = NotApplicable("the noise has another size in each number of z; this is computed for noise of one size")


@dataclass(frozen=True, eq=False)
class DiagonalNoise:
    """z = ẑ + σ √profile · N(0, I). Source: docs/theory.md, "The defences".

    noise_std: σ > 0. profile: variance of each number, in parts of the mean; its mean is 1.
    """

    noise_std: float
    profile: Float[Tensor, "z_channel z_height z_width"]

    @property
    def gaussian_std(self) -> NotApplicable:
        return _NOT_WHITE

    @property
    def white_std(self) -> NotApplicable:
        return _NOT_WHITE

    def stds(self, clean: Smashed) -> Smashed:
        return (self.noise_std * self.profile.sqrt()).expand_as(clean)

    def unit(self, clean: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        return standard_normal(clean, generator)

    def send(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        return clean + self.stds(clean) * self.unit(clean, generator)

    def observe(self, clean: Float[Tensor, "n d"], unit: Float[Tensor, "n d"]) -> Observed:
        return Observed(
            clean.double() + self._stds * unit.double(), self._log_peak - 0.5 * unit.double().square().sum(1)
        )

    def log_densities(self, z: Float[Tensor, "n d"], clean: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        one, other = (points.double() / self._stds for points in (z, clean))
        gap = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist")
        return self._log_peak - 0.5 * gap.square()

    def entropy(self, clean: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return (0.5 * clean.shape[1] - self._log_peak).expand(len(clean))

    def sized(self, noise_std: float) -> "DiagonalNoise":
        return replace(self, noise_std=noise_std)

    def mean_of(self, n: int) -> "DiagonalNoise":
        return self.sized(self.noise_std / n**0.5)

    @property
    def _stds(self) -> Float[Tensor, " d"]:
        return self.noise_std * self.profile.double().sqrt().flatten()

    @property
    def _log_peak(self) -> Float[Tensor, ""]:
        """Largest log density: that of z = ẑ."""
        return -(self._stds.log() + 0.5 * math.log(2 * math.pi)).sum()


class Learned(nn.Module):
    """Shares of the variance that are descended on, through the noise that they make; equal at first."""

    def __init__(self, smashed: Shape) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(smashed))

    def forward(self) -> Float[Tensor, "z_channel z_height z_width"]:
        """The shares; their mean is 1."""
        return self.logits.flatten().softmax(0).view_as(self.logits) * self.logits.numel()

    def watch(self, z: Smashed) -> None:
        """Nothing: the optimizer does it."""


class Fisher(nn.Module):
    """Shares of the variance that are inverse to the Fisher information of the task; equal at first.

    fisher: of each number of z, running mean of the squared gradient of an image's cross entropy there. It starts at 0,
    which all numbers share.
    """

    fisher: Tensor

    def __init__(self, smashed: Shape) -> None:
        super().__init__()
        self.register_buffer("fisher", torch.zeros(smashed))

    def forward(self) -> Float[Tensor, "z_channel z_height z_width"]:
        """The shares; their mean is 1."""
        relative = self.fisher / self.fisher.mean().clamp_min(torch.finfo(self.fisher.dtype).tiny)
        inverse = 1 / (relative + _DAMPING)
        return inverse / inverse.mean()

    def watch(self, z: Smashed) -> None:
        """Take note of the gradient at z when it comes; in training only."""
        if self.training and z.requires_grad:
            z.register_hook(self._record)  # type: ignore[no-untyped-call]

    def _record(self, gradient: Smashed) -> None:
        # The loss is a mean: an image's own gradient is as many times as large as there are images.
        squares = (len(gradient) * gradient).square().mean(0)
        self.fisher.lerp_(squares.to(self.fisher.dtype), 1 - _MEMORY)


class ShapedNoiseDefense(Mechanism):
    """Gaussian noise with a diagonal covariance of a fixed mean variance. Source: docs/theory.md, "The defences"."""

    def __init__(self, cfg: ShapedNoise) -> None:
        self.cfg = cfg
        self.learned: Learned | Fisher | None = None

    def build(self, smashed: Shape, generator: torch.Generator) -> None:
        self.learned = Learned(smashed) if self.cfg.shape == "learned" else Fisher(smashed)

    @property
    def channel(self) -> DiagonalNoise:
        floor = self.cfg.floor
        return DiagonalNoise(self.cfg.std, floor + (1 - floor) * self._shares()())

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        z = self.channel.send(smashed, generator)
        self._shares().watch(z)
        return z

    def _shares(self) -> Learned | Fisher:
        if self.learned is None:
            raise RuntimeError("expected the noise's shape, found none: call build before z is sent")
        return self.learned
