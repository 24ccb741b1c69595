"""The variational information bottleneck: noise whose size each ẑ chooses."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d

from cem.config import Vib
from cem.defenses.base import Mechanism, Shape
from cem.defenses.channel import NotApplicable, Observed
from cem.defenses.noise import standard_normal
from cem.types import Images, Labels, Smashed

_MEMORY = 0.99  # weight of the noise's variance before the last batch
_OF_Z = NotApplicable("the size of the noise depends on ẑ; this is computed for noise of one size")
_OF_SPREAD = NotApplicable("the size of the noise depends on ẑ: several looks tell more than their mean does")


@dataclass(frozen=True, eq=False)
class ScaledNoise:
    """z = ẑ + factor · s(ẑ) N(0, I), the size s a function of ẑ alone. Source: docs/theory.md, "The defences".

    log_scale: log s of ẑ [n, *shape]. shape: of one ẑ. mean_square: variance of the noise at factor 1, mean over ẑ and
    their numbers.
    """

    log_scale: Callable[[Smashed], Smashed]
    shape: Shape
    mean_square: Float[Tensor, ""]
    factor: float = 1.0

    @property
    def noise_std(self) -> float:
        return self.factor * math.sqrt(float(self.mean_square))

    @property
    def gaussian_std(self) -> NotApplicable:
        return _OF_Z

    @property
    def white_std(self) -> NotApplicable:
        return _OF_Z

    def stds(self, clean: Smashed) -> Smashed:
        return self.factor * self.log_scale(clean).exp()

    def unit(self, clean: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        return standard_normal(clean, generator)

    def send(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        return clean + self.stds(clean) * self.unit(clean, generator)

    def observe(self, clean: Float[Tensor, "n d"], unit: Float[Tensor, "n d"]) -> Observed:
        logs = self._logs(clean)
        return Observed(
            clean.double() + logs.exp() * unit.double(),
            -(0.5 * unit.double().square() + logs + 0.5 * math.log(2 * math.pi)).sum(1),
        )

    def log_densities(self, z: Float[Tensor, "n d"], clean: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        # ‖(z − ẑ)/s‖² with another s for each ẑ, by its three products: around the mean ẑ, in float64, little is lost.
        logs, centre = self._logs(clean), clean.double().mean(0)
        one, other, weights = z.double() - centre, clean.double() - centre, (-2 * logs).exp()
        gap = one.square() @ weights.T - 2 * one @ (weights * other).T + (weights * other.square()).sum(1)
        return -0.5 * gap.clamp_min(0) - (logs + 0.5 * math.log(2 * math.pi)).sum(1)

    def entropy(self, clean: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        return (self._logs(clean) + 0.5 * math.log(2 * math.pi * math.e)).sum(1)

    def sized(self, noise_std: float) -> "ScaledNoise":
        return replace(self, factor=self.factor * noise_std / self.noise_std)

    def mean_of(self, n: int) -> "ScaledNoise | NotApplicable":
        """Of one look: the spread of several tells ẑ, too, and a bound for their mean would leave that out."""
        return self if n == 1 else _OF_SPREAD

    def _logs(self, clean: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """log of the noise's standard deviation in each number."""
        return self.log_scale(clean.view(-1, *self.shape)).double().flatten(1) + math.log(self.factor)


class LogScale(nn.Module):
    """log s(ẑ): a 1×1 convolution of ẑ, at first the same everywhere.

    mean_square: running mean of s² over the images of training, and over the numbers of their ẑ.
    """

    mean_square: Tensor

    def __init__(self, channels: int, initial_std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.full((channels,), math.log(initial_std)))
        self.register_buffer("mean_square", torch.tensor(initial_std**2))

    def forward(self, clean: Smashed) -> Smashed:
        return conv2d(clean, self.weight, self.bias)

    @torch.no_grad()
    def record(self, clean: Smashed) -> None:
        """Take note of the size of the noise that a batch gets."""
        self.mean_square.lerp_(self(clean).exp().square().mean(), 1 - _MEMORY)


class VibDefense(Mechanism):
    """z ~ N(ẑ, s(ẑ)²), and `weight` · KL(N(ẑ, s(ẑ)²) ‖ N(0, 1)), mean over the images.

    s is a function of ẑ, where Alemi et al.'s may be any function of x: only then is p(z|ẑ) a channel. The channel's
    noise_std is `initial_std` before training; then what it was in training, as a running root mean square.
    """

    def __init__(self, cfg: Vib) -> None:
        self.cfg = cfg
        self.learned: LogScale | None = None
        self._shape: Shape = (0, 0, 0)

    def build(self, smashed: Shape, generator: torch.Generator) -> None:
        self.learned, self._shape = LogScale(smashed[0], self.cfg.initial_std), smashed

    @property
    def channel(self) -> ScaledNoise:
        log_scale = self._log_scale()
        return ScaledNoise(log_scale, self._shape, log_scale.mean_square)

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        return self.channel.send(smashed, generator)

    def learn(self, images: Images, clean: Smashed, labels: Labels) -> None:
        self._log_scale().record(clean)

    def penalty(self, images: Images, clean: Smashed, labels: Labels) -> Float[Tensor, ""]:
        return self.cfg.weight * divergence(clean, self._log_scale()(clean))

    def _log_scale(self) -> LogScale:
        if self.learned is None:
            raise RuntimeError("expected the noise's size, found none: call build before z is sent")
        return self.learned


def divergence(mean: Smashed, log_std: Smashed) -> Float[Tensor, ""]:
    """KL(N(mean, std²) ‖ N(0, I)) in nats per image, mean over the batch: ½ Σ (mean² + std² − 1 − 2 log std).

    Source: Alemi, Fischer, Dillon & Murphy 2017, equation 17.
    """
    return 0.5 * (mean.square() + (2 * log_std).exp() - 1 - 2 * log_std).flatten(1).sum(1).mean()
