"""What an attacker's own observations of z are like, and z standardised by that.

What a client sends may be small, or vary little about a large offset. Neither hides anything: an attacker can subtract
and divide. An attack that did not would lose digits, or learn slowly, and the run would look protected.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.attacks.base import Knowledge, chunks
from cem.types import Images, Smashed

LEAST = 1e-300  # to divide by
CONSTANT = 1e-12  # a spread below this part of the mean is what float64 makes of none


@dataclass(frozen=True)
class Standard:
    """Subtracts a centre and divides by a scale; both broadcast against z [batch, channel, height, width]."""

    centre: Float[Tensor, "..."]
    scale: Float[Tensor, "..."]

    def __call__(self, smashed: Smashed) -> Smashed:
        return (smashed - self.centre) / self.scale


@dataclass(frozen=True)
class Spread:
    """Of each value of z, over the attacker's images: how often it was counted, its mean and variance, in float64."""

    count: Float[Tensor, "channel height width"]
    mean: Float[Tensor, "channel height width"]
    variance: Float[Tensor, "channel height width"]

    def by_value(self) -> Standard:
        """The mean of each value, and one scale for all: distances and directions stay what they are."""
        share = self.count / self.count.sum().clamp_min(1)
        variance, level = (share * self.variance).sum(), (share * self.mean.square()).sum().sqrt()
        return Standard(self.mean.float(), _or_one(variance.sqrt(), level))

    def by_channel(self) -> Standard:
        """Mean and standard deviation of each channel, over its places and the images: what networks read.

        A pattern over the places, such as of learned positions, may not drown what varies about it: where its variance
        is the larger one, it is made as small as that. All of it does not go: places are what it tells from each other,
        which convolutions do not know by themselves.
        """
        share = self.count / self.count.sum((1, 2), keepdim=True).clamp_min(1)
        mean = (share * self.mean).sum((1, 2), keepdim=True)
        within = (share * self.variance).sum((1, 2), keepdim=True)
        pattern = (share * (self.mean - mean).square()).sum((1, 2), keepdim=True)
        left = torch.where(pattern > within, (within / pattern.clamp_min(LEAST)).sqrt(), 1.0)
        spread = (within + left.square() * pattern).sqrt()
        return Standard(
            (mean + (1 - left) * (self.mean - mean)).float(), _or_one(spread, (mean.square() + pattern).sqrt())
        )


def observed_spread(knowledge: Knowledge, *, visible: bool) -> Spread:
    """From one z of each of the attacker's images, drawn from a generator of its own, so it is the same at every call.

    visible: leave out the values that a mask hides.
    """
    generator = knowledge.generator("standard")
    looks = (knowledge.observe(rows, generator) for rows in chunks(knowledge.images.shape))
    return spread_of(looks, masked=visible and knowledge.masked)


def spread_of(batches: Iterable[Smashed], *, masked: bool) -> Spread:
    """That of all batches together. masked: a value of 0 is hidden, and left out.

    Sums are about the mean of the first batch: what all z share would drown the rest.
    """
    origin = count = total = square = torch.zeros((), dtype=torch.float64)
    for number, batch in enumerate(batches):
        z = batch.double()
        seen = z != 0 if masked else torch.ones_like(z, dtype=torch.bool)
        if number == 0:
            origin = z.sum(0) / seen.sum(0).clamp_min(1)  # a hidden value is 0, and adds nothing
        deviation = torch.where(seen, z - origin, 0.0)
        count = count + seen.sum(0)
        total, square = total + deviation.sum(0), square + deviation.square().sum(0)
    mean, mean_square = total / count.clamp_min(1), square / count.clamp_min(1)
    return Spread(count, origin + mean, (mean_square - mean.square()).clamp_min(0))


class Standardised(nn.Module):
    """A network behind the standardisation of its input, which is z as it was sent.

    Under a defence that masks, a hidden value becomes 0, the mean, and beside z, as channels more, stands which values
    are not hidden: without these a hidden value looks like one that is 0.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, inner: nn.Module, standard: Standard, masked: bool) -> None:
        super().__init__()
        self.inner, self.masked = inner, masked
        self.register_buffer("centre", standard.centre)
        self.register_buffer("scale", standard.scale)

    def forward(self, smashed: Smashed) -> Images:
        images: Tensor = self.inner(self.input(smashed))
        return images

    def input(self, smashed: Smashed) -> Float[Tensor, "batch input_channel z_height z_width"]:
        """What the inner network is given."""
        z = Standard(self.centre, self.scale)(smashed)
        if not self.masked:
            return z
        seen = smashed != 0
        return torch.cat([torch.where(seen, z, 0.0), seen.to(z.dtype)], dim=1)


def _or_one(spread: Tensor, level: Tensor) -> Float[Tensor, "..."]:
    """A scale to divide by: 1 where nothing varies."""
    varies = spread > (CONSTANT * level).clamp_min(torch.finfo(torch.float32).tiny)
    return torch.where(varies, spread, 1.0).float()
