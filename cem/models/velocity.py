"""Velocity of a flow from noise to images: a small U-Net told the time, and where there is a z, what it says."""

import math
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.config import parse_decoder
from cem.models.decoder import HALVINGS, ResidualBlock, Shape, to_grid
from cem.models.init import allocate, initialise
from cem.types import Images, Smashed

FREQUENCIES = 8  # of the time, as sines and cosines
Features = Float[Tensor, "batch feature feature_height feature_width"]
Moments = Float[Tensor, " batch"]


class TimedBlock(nn.Module):
    """SiLU-Conv twice, added to its input; the time scales and shifts the channels in between.

    Nothing is normalised: the scale of a noisy image says how much of it is noise.
    """

    def __init__(self, channels_in: int, channels_out: int, time: int) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.SiLU(), nn.Conv2d(channels_in, channels_out, 3, padding=1))
        self.change = nn.Linear(time, 2 * channels_out)
        self.after = nn.Sequential(nn.SiLU(), nn.Conv2d(channels_out, channels_out, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)

    def forward(
        self, x: Float[Tensor, "batch before height width"], time: Float[Tensor, "batch time"]
    ) -> Float[Tensor, "batch after height width"]:
        scale, shift = self.change(time)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.after(self.before(x) * (1 + scale) + shift) + self.skip(x)
        return out


class Condition(nn.Module):
    """What z says, once for all times: residual blocks at its resolution, then up to that of the velocity's U-Net.

    fit: as of a decoder.
    """

    def __init__(self, channels_in: int, channels: int, doublings: int, fit: nn.Module) -> None:
        super().__init__()
        self.fit = fit
        layers: list[nn.Module] = [ResidualBlock(channels_in, channels), ResidualBlock(channels, channels)]
        for _ in range(doublings):
            layers += [
                nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1),
                ResidualBlock(channels, channels),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Smashed) -> Features:
        features: Tensor = self.layers(self.fit(z))
        return features


class Velocity(nn.Module):
    """v(x_t, t), or v(x_t, t, features): a U-Net on images whose patches of `patch`×`patch` pixels became channels.

    Images are standardised: mean 0, variance 1. What the U-Net is given and what it adds have a variance of 1 at every
    time where pixels are independent (Karras et al. 2022, arXiv 2206.00364, for this path).
    """

    def __init__(self, channels: int, image_channels: int, side: int, patch: int, feature_channels: int) -> None:
        super().__init__()
        self.patch, time = patch, 4 * channels
        pixels = image_channels * patch**2
        widths = [channels * 2**depth for depth in range(1 + min(HALVINGS, (side // patch - 1).bit_length()))]
        steps = list(pairwise(widths))
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.enter = nn.Conv2d(pixels + feature_channels, channels, 3, padding=1)
        self.first = TimedBlock(channels, channels, time)
        self.shrink = nn.ModuleList(nn.Conv2d(wide, deep, 3, stride=2, padding=1) for wide, deep in steps)
        self.down = nn.ModuleList(TimedBlock(deep, deep, time) for _, deep in steps)
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 3, stride=2, padding=1) for wide, deep in steps)
        self.join = nn.ModuleList(TimedBlock(2 * wide, wide, time) for wide, _ in steps)
        self.leave = nn.Conv2d(channels, pixels, 3, padding=1)

    def forward(self, x: Images, time: Moments, features: Features | None = None) -> Images:
        """Velocity at noisy images x, each at its own time in [0, 1]."""
        told = self.time(_waves(time))
        at = time.view(-1, 1, 1, 1)
        variance = at.square() + (1 - at).square()
        patches = nn.functional.pixel_unshuffle(x / variance.sqrt(), self.patch)
        seen = patches if features is None else torch.cat([patches, features], dim=1)
        out = self.first(self.enter(seen), told)
        skips = []
        for shrink, down in zip(self.shrink, self.down, strict=True):
            skips.append(out)
            out = down(shrink(out), told)
        for up, join, skip in zip(reversed(self.up), reversed(self.join), reversed(skips), strict=True):
            out = join(torch.cat([up(out, output_size=skip.shape[2:]), skip], dim=1), told)
        added = nn.functional.pixel_shuffle(self.leave(out), self.patch)
        velocity: Tensor = (2 * at - 1) / variance * x + added / variance.sqrt()
        return velocity


def make_velocity(
    name: str, image_shape: Shape, smashed_shape: Shape | None, generator: torch.Generator
) -> tuple[Velocity, Condition | None]:
    """The velocity `unet_C{channels}` of images [channels, h, w], and what it is told of z; None where there is none.

    The generator draws the initial weights and decides the device. Raises ValueError for a name of another form,
    DecoderError where z is larger than the image.
    """
    blocks, channels = parse_decoder(name)
    if blocks is not None:
        raise ValueError(f"expected unet_C<channels>, such as unet_C32; found {name!r}")
    fit, doublings = (nn.Identity(), None) if smashed_shape is None else to_grid(smashed_shape, image_shape)
    even = all(side % 2 == 0 for side in image_shape[1:]) if doublings is None else doublings > 0
    patch = 2 if even else 1
    with torch.device("meta"):  # whose constructors have nothing to draw from the global generator
        told = 0 if smashed_shape is None else channels
        velocity = Velocity(channels, image_shape[0], min(image_shape[1:]), patch, told)
        condition = None
        if smashed_shape is not None and doublings is not None:
            condition = Condition(smashed_shape[0], channels, doublings - (patch - 1), fit)
    for module in (velocity, condition):
        if module is not None:
            allocate(module, generator.device)
            initialise(module, generator)
    return velocity, condition


def _waves(time: Moments) -> Float[Tensor, "batch wave"]:
    """Sines and cosines of the time."""
    angles = math.pi * time[:, None] * torch.arange(1, FREQUENCIES + 1, device=time.device)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
