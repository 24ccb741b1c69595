"""The attacker's decoder: from smashed data back to the image."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem import CemError
from cem.config import parse_decoder
from cem.config.decoder import grid_of
from cem.models.init import allocate, initialise
from cem.types import Images, Smashed

Shape = tuple[int, int, int]  # channels, height, width
HALVINGS = 2  # of z's side in a U-Net


class DecoderError(CemError):
    """A decoder that cannot turn these smashed data into these images."""


class ResidualBlock(nn.Module):
    """Pre-activation block: BN-ReLU-Conv twice, added to its input (1×1 convolution and BN where channels change)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.ReLU(),
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
        )
        self.skip = (
            nn.Identity()
            if channels_in == channels_out
            else nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out))
        )

    def forward(self, x: Float[Tensor, "batch before height width"]) -> Float[Tensor, "batch after height width"]:
        out: Tensor = self.body(x) + self.skip(x)
        return out


class Decoder(nn.Module):
    """Residual blocks at the resolution of z, a transposed convolution for each doubling, a last block, a sigmoid.

    fit: what brings z to a size from which doublings lead to the image (`to_grid`).
    Source: docs/theory.md, "The attacks" (the decoder of ResSFL, CVPR 2022, as used by arXiv 2503.00383).
    """

    def __init__(self, blocks: int, channels: int, doublings: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.fit: nn.Module = nn.Identity()
        self.layers = nn.Sequential(
            ResidualBlock(channels_in, channels),
            *(ResidualBlock(channels, channels) for _ in range(blocks)),
            *_to_image(channels, doublings, channels_out),
        )

    def forward(self, z: Smashed) -> Images:
        images: Tensor = self.layers(self.fit(z))
        return images


class UNet(nn.Module):
    """Down to a quarter of z's side and up again, with skip connections; then the end of the residual decoder.

    A side of 1 is not halved; an odd one is rounded up, and comes back by a transposed convolution that ends a row and
    column earlier. Channels double with every halving. fit: as of `Decoder`.
    Source: Ronneberger, Fischer & Brox 2015 (arXiv 1505.04597), with the residual decoder's blocks in place of theirs.
    """

    def __init__(self, channels: int, doublings: int, channels_in: int, channels_out: int, side: int) -> None:
        super().__init__()
        self.fit: nn.Module = nn.Identity()
        widths = [channels * 2**depth for depth in range(1 + min(HALVINGS, (side - 1).bit_length()))]
        steps = list(pairwise(widths))
        self.enter = ResidualBlock(channels_in, channels)
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, deep, 3, stride=2, padding=1), ResidualBlock(deep, deep))
            for wide, deep in steps
        )
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 3, stride=2, padding=1) for wide, deep in steps)
        self.join = nn.ModuleList(ResidualBlock(2 * wide, wide) for wide, _ in steps)
        self.leave = nn.Sequential(*_to_image(channels, doublings, channels_out))

    def forward(self, z: Smashed) -> Images:
        x: Tensor = self.enter(self.fit(z))
        skips = []
        for down in self.down:
            skips.append(x)
            x = down(x)
        for up, join, skip in zip(reversed(self.up), reversed(self.join), reversed(skips), strict=True):
            x = join(torch.cat([up(x, output_size=skip.shape[2:]), skip], dim=1))
        images: Tensor = self.leave(x)
        return images


def _to_image(channels: int, doublings: int, channels_out: int) -> list[nn.Module]:
    """From features at the resolution of z to the image."""
    layers: list[nn.Module] = []
    for _ in range(doublings):
        layers += [
            nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(channels),
        ]
    return [*layers, ResidualBlock(channels, channels_out), nn.Sigmoid()]


def make_decoder(
    name: str, smashed_shape: Shape, image_shape: Shape, generator: torch.Generator | None = None
) -> Decoder | UNet:
    """The decoder `res_normN{blocks}C{channels}` or `unet_C{channels}`: z [channels, h, w] to images in [0, 1].

    generator: draws the initial weights and decides the device; absent: one on the CPU with seed 0.
    Raises ValueError for a name of another form, DecoderError where z is larger than the image.
    """
    blocks, channels = parse_decoder(name)
    fit, doublings = to_grid(smashed_shape, image_shape)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # whose constructors have nothing to draw from the global generator
        decoder = (
            UNet(channels, doublings, smashed_shape[0], image_shape[0], side=min(image_shape[1:]) >> doublings)
            if blocks is None
            else Decoder(blocks, channels, doublings, smashed_shape[0], image_shape[0])
        )
        decoder.fit = fit
    allocate(decoder, generator.device)
    initialise(decoder, generator)
    return decoder


class Resample(nn.Module):
    """Features of another size, linear between the former ones, as products with two matrices.

    torch's own layer has another slope at every call on CUDA, and an adversary's slope reaches the client.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Float[Tensor, "batch c before_h before_w"]) -> Float[Tensor, "batch c after_h after_w"]:
        rows, columns = (_between(n, size).to(x) for n, size in zip(x.shape[2:], self.size, strict=True))
        out: Tensor = rows @ x @ columns.T
        return out


def _between(before: int, after: int) -> Float[Tensor, "after before"]:
    """Row i: the two nearest of `before` points to the i-th of `after` points over the same length, by distance."""
    place = ((torch.arange(after, dtype=torch.float64) + 0.5) * before / after - 0.5).clamp(0, before - 1)
    return (1 - (place[:, None] - torch.arange(before)).abs()).clamp(min=0)


def to_grid(smashed_shape: Shape, image_shape: Shape) -> tuple[nn.Module, int]:
    """What brings z to a size from which doublings lead to the image, and how many these are (`grid_of`).

    Raises DecoderError where z is larger than the image, or height and width need another number of doublings.
    """
    try:
        grids = [grid_of(z, side) for z, side in zip(smashed_shape[1:], image_shape[1:], strict=True)]
        (doublings,) = {times for _, times in grids}
    except ValueError:
        raise DecoderError(
            f"The decoder enlarges z until it is an image, height and width alike: found z {smashed_shape} and image "
            f"{image_shape}. Choose another side, cut_layer or stride."
        ) from None
    size = grids[0][0], grids[1][0]
    return (nn.Identity() if size == smashed_shape[1:] else Resample(size)), doublings
