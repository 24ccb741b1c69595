"""A lower bound on I(x; ẑ + ε) that needs no fit, for the channel is known; and its upper twin."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.defenses import Channel, NotApplicable
from cem.mixture.samples import MixtureError

SATURATED = 0.95  # of its ceiling: above it the lower bound says "at least about log K", and nothing more
_ROWS = 512  # worked on at once
_SAME = 1e-12  # ẑ whose squared distance is below this part of their squares are equal, when there is no noise


@dataclass(frozen=True)
class Contrast:
    """What K images say of the leakage, all in nats.

    lower: one number per image, whose mean is the lower bound and whose SEM is that of the mean. upper: the
    leave-one-out twin, likewise. ceiling: log K, which no lower bound of K images exceeds.
    """

    lower: Float[Tensor, " k"]
    upper: Float[Tensor, " k"]
    ceiling: float

    @property
    def saturated(self) -> bool:
        """Whether the lower bound is within 5 % of its ceiling."""
        return float(self.lower.mean()) >= SATURATED * self.ceiling


class Pairs:
    """Each of K images, with its noise, held against all of them.

    InfoNCE with the exact density of the channel p(z|x): log p(z_i|x_i) − log (1/K) Σ_k p(z_i|x_k),
    in the mean at most I(x; z), and at most log K. Without the own image in the sum, (K − 1 of them) at least I(x; z).
    All in float64. Source: Poole, Ozair, van den Oord, Alemi & Tucker 2019, equations 10 and 13; lower with p known.
    """

    def __init__(self, smashed: Float[Tensor, "k d"], noise: Float[Tensor, "k d"]) -> None:
        """smashed: clean ẑ. noise: of the unit size, a row per image. Raises MixtureError for fewer than two images."""
        if len(smashed) < 2:
            raise MixtureError(
                f"expected at least 2 test images to hold against each other, found {len(smashed)}. "
                "Use a larger test split."
            )
        self._smashed, self._noise = smashed, noise
        points = smashed.double()
        points = points - points.mean(0)
        square, noise = points.square().sum(1), noise.double()
        self._size = square
        # ‖ẑ_i − ẑ_k‖², and ε_i · (ẑ_i − ẑ_k): all that Gaussian noise of any σ needs
        self._gap = (square.unsqueeze(1) + square - 2 * points @ points.T).clamp_min(0).fill_diagonal_(0)
        self._pull = (noise * points).sum(1, keepdim=True) - noise @ points.T

    @property
    def spread(self) -> float:
        """Root mean squared distance of two images."""
        return math.sqrt(float(self._gap.mean()))

    def at(self, channel: Channel) -> Contrast:
        """The bounds of a channel; without noise images are equal or told apart for certain."""
        count = len(self._gap)
        lower, upper, shared = [], [], self._gap.new_zeros(count)
        for start in range(0, count, _ROWS):
            log_ratio = self._log_ratio(slice(start, start + _ROWS), channel)  # of p(z_i|x_k) to p(z_i|x_i)
            log_ratio.diagonal(start).fill_(-math.inf)
            others = log_ratio.logsumexp(1)
            everyone = torch.nn.functional.softplus(others)
            shared += (log_ratio - everyone.unsqueeze(1)).exp().sum(0)
            shared[start : start + len(everyone)] += (-everyone).exp()
            lower.append(math.log(count) - everyone)
            upper.append(math.log(count - 1) - others)
        # An image has two parts: its own z, and what it is to the z of others. The second has mean 0 (`shared` has
        # mean 1) and belongs to the mean's error.
        return Contrast(torch.cat(lower) + 1 - shared, torch.cat(upper) + 1 - shared, math.log(count))

    def _log_ratio(self, rows: slice, channel: Channel) -> Float[Tensor, "row k"]:
        if channel.noise_std == 0:
            same = self._gap[rows] <= _SAME * (self._size[rows].unsqueeze(1) + self._size)
            return torch.where(same, 0.0, -math.inf).to(self._gap.dtype)
        std = channel.gaussian_std
        if isinstance(std, NotApplicable):
            z, log_density = channel.observe(self._smashed[rows], self._noise[rows])
            return channel.log_densities(z, self._smashed) - log_density.unsqueeze(1)
        return -self._gap[rows] / (2 * std**2) - self._pull[rows] / std
