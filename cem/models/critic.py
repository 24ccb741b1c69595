"""The GAN attack's critic: an image to one number."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.models.decoder import DecoderError, Shape
from cem.models.init import allocate, initialise
from cem.types import Images

WIDTHS = (64, 128, 256)
SMALLEST = 2 ** len(WIDTHS) + 1  # pixels: with fewer, the last normalisation would see one number per channel


class Critic(nn.Module):
    """Three 5×5 convolutions of stride 2, the second and third normalised per image and channel; a linear head.

    The first has no normalisation, which would hide an image's brightness and contrast from the critic. None may mix
    the images of a batch, since the gradient penalty is defined for each image alone. Source: docs/theory.md, "The
    attacks"; Gulrajani et al. 2017 (arXiv 1704.00028) for what must not be normalised.
    """

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for after in WIDTHS:
            layers += [nn.Conv2d(before, after, 5, stride=2, padding=2)]
            layers += [nn.InstanceNorm2d(after)] if after != WIDTHS[0] else []
            layers += [nn.LeakyReLU(0.2)]
            before, height, width = after, (height + 1) // 2, (width + 1) // 2
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * height * width, 1))

    def forward(self, images: Images) -> Float[Tensor, " batch"]:
        scores: Tensor = self.layers(images)
        return scores.squeeze(1)


def make_critic(image_shape: Shape, generator: torch.Generator) -> Critic:
    """A critic of images [channels, height, width]; the generator draws its weights and decides the device."""
    if min(image_shape[1:]) < SMALLEST:
        raise DecoderError(
            f"The critic needs sides of at least {SMALLEST} pixels; found {image_shape}. Use a decoder, not a gan."
        )
    with torch.device("meta"):  # whose constructors have nothing to draw from the global generator
        critic = Critic(*image_shape)
    allocate(critic, generator.device)
    initialise(critic, generator)
    return critic
