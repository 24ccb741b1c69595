"""Tells two kinds of z apart: maps of channels to one number."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.models.decoder import Shape
from cem.models.init import allocate, initialise

WIDTH, WIDEST = 32, 128  # channels of the first convolution, and at most
LEFT = 2  # the side at which z is no longer halved


class Discriminator(nn.Module):
    """3×3 convolutions, of stride 2 until the side is `LEFT`, then a linear head that knows the places.

    Without normalisation, which would hide z's scale from it. Positive: it takes z for one of the first kind.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, WIDTH, 3, padding=1), nn.LeakyReLU(0.2)]
        before = WIDTH
        while max(height, width) > LEFT:
            after = min(2 * before, WIDEST)
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            before, height, width = after, (height + 1) // 2, (width + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * height * width, 1))

    def forward(self, z: Float[Tensor, "batch channel height width"]) -> Float[Tensor, " batch"]:
        scores: Tensor = self.layers(z)
        return scores.squeeze(1)


def make_discriminator(shape: Shape, generator: torch.Generator) -> Discriminator:
    """A discriminator of z [channels, height, width]; the generator draws its weights and decides the device."""
    with torch.device("meta"):  # whose constructors have nothing to draw from the global generator
        discriminator = Discriminator(*shape)
    allocate(discriminator, generator.device)
    initialise(discriminator, generator)
    return discriminator
