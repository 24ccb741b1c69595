"""Fisher information of an image in z = ẑ + ε, by forward-mode differentiation of the encoder."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.types import Images, PerImage, Smashed

_ROWS = 256  # images differentiated at once
Encoder = Callable[[Images], Smashed]


@dataclass(frozen=True)
class Fisher:
    """tr(JᵀJ)/(d_x σ²) of each image: dFIL. J: Jacobian of ẑ(x), d_x: numbers of an image."""

    values: PerImage

    @property
    def mean(self) -> float:
        return float(self.values.mean())

    @property
    def sem(self) -> float:
        """Standard error of the mean, over images and probes; nan for one image."""
        return float(self.values.std() / len(self.values) ** 0.5)


def fisher_leakage(
    encoder: Encoder, images: Images, noise_std: float, *, probes: int | None, generator: torch.Generator
) -> Fisher:
    """dFIL of each image, in float64. σ > 0, images in [0, 1], an encoder in evaluation mode.

    probes: how many directions v with random signs ‖Jv‖² is averaged over for each image, E vvᵀ = I; None: the basis,
    which is exact and takes d_x of them. The generator is on the images' device.
    Source: docs/theory.md, "Fisher information".
    """
    pixels = images[0].numel()

    def signs(part: Images) -> Images:
        return torch.randint(0, 2, part.shape, generator=generator, device=part.device).to(part.dtype) * 2 - 1

    def unit(part: Images, place: int) -> Images:
        direction = torch.zeros_like(part)
        direction.flatten(1)[:, place] = 1
        return direction

    found = []
    for part in torch.split(images, _ROWS):
        squares = torch.zeros(len(part), dtype=torch.float64, device=part.device)
        for place in range(pixels if probes is None else probes):
            squares += _pushed(encoder, part, unit(part, place) if probes is None else signs(part))
        found.append(squares / ((probes or 1) * pixels * noise_std**2))
    return Fisher(torch.cat(found))


def _pushed(encoder: Encoder, images: Images, direction: Images) -> Float[Tensor, " batch"]:
    """‖Jv‖² of each image."""
    with warnings.catch_warnings():
        # torch's own forward mode scripts its decompositions when it is first used.
        warnings.filterwarnings("ignore", "`torch.jit.script`", FutureWarning)
        along: Smashed = torch.func.jvp(encoder, (images,), (direction,))[1]
    return along.flatten(1).double().square().sum(1)
