"""The attacker's decoder: from smashed data back to the image."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem import CemError
from cem.config import parse_decoder
from cem.models.init import initialise
from cem.types import Images, Smashed

Shape = tuple[int, int, int]  # channels, height, width


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
    """Residual blocks at the resolution of z, one transposed convolution a doubling, a last block, a sigmoid.

    Source: REFERENCE §6 (the decoder of ResSFL, CVPR 2022, as used by arXiv 2503.00383).
    """

    def __init__(self, blocks: int, channels: int, doublings: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        upsampling: list[nn.Module] = []
        for _ in range(doublings):
            upsampling += [
                nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1),
                nn.BatchNorm2d(channels),
            ]
        self.layers = nn.Sequential(
            ResidualBlock(channels_in, channels),
            *(ResidualBlock(channels, channels) for _ in range(blocks)),
            *upsampling,
            ResidualBlock(channels, channels_out),
            nn.Sigmoid(),
        )

    def forward(self, z: Smashed) -> Images:
        images: Tensor = self.layers(z)
        return images


def make_decoder(
    name: str, smashed_shape: Shape, image_shape: Shape, generator: torch.Generator | None = None
) -> Decoder:
    """The decoder `res_normN{blocks}C{channels}` from z [channels, h, w] to images [channels, H, W] in [0, 1].

    generator: draws the initial weights and decides the device; absent: one on the CPU with seed 0.
    Raises ValueError for a name of another form, DecoderError unless H/h = W/w is a power of two.
    """
    blocks, channels = parse_decoder(name)
    doublings = _doublings(smashed_shape, image_shape)
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):  # whose constructors have nothing to draw from the global generator
        decoder = Decoder(blocks, channels, doublings, smashed_shape[0], image_shape[0])
    decoder.to_empty(device=generator.device)
    initialise(decoder, generator)
    return decoder


def _doublings(smashed_shape: Shape, image_shape: Shape) -> int:
    ratios = {image / smashed for image, smashed in zip(image_shape[1:], smashed_shape[1:], strict=True)}
    ratio = int(next(iter(ratios)))
    if ratios != {ratio} or ratio < 1 or ratio.bit_count() != 1:
        raise DecoderError(
            f"The decoder doubles the side of z until it is the image's: expected an image side of 1, 2, 4, 8, … times "
            f"that of z; found z {smashed_shape} and image {image_shape}. Choose another side, cut_layer or stride."
        )
    return ratio.bit_length() - 1
