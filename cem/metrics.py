"""How close a reconstruction is to its image: one number an image, never averaged here."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem import CemError
from cem.types import PerImage

PSNR_CAP_DB = 100.0  # of identical images, for which the ratio is infinite
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # pixels
TOLERANCE = 1e-6  # rounding that a value may lie outside [0, 1] by
AnyImages = Float[Tensor, "_ _ _ _"]  # [batch, channel, height, width]; that two of them agree is checked below


class MetricError(CemError):
    """Images that cannot be compared."""


def mse(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Mean squared error over an image's channels and pixels; images in [0, 1].

    Raises MetricError for different shapes and for values outside [0, 1], as all metrics here do.
    """
    _check(reconstruction, target)
    return (reconstruction - target).square().flatten(1).mean(1)


def psnr_db(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Peak signal-to-noise ratio, 10 log₁₀(1 / MSE), in decibels; at most PSNR_CAP_DB."""
    return -10 * mse(reconstruction, target).clamp_min(10 ** (-PSNR_CAP_DB / 10)).log10()


def ssim(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Structural similarity under an 11×11 Gaussian window of σ = 1.5, averaged over an image; 1 for identical images.

    Borders are reflected, so that windows reach every pixel; sides of 6 pixels at least.

    Source: Wang, Bovik, Sheikh & Simoncelli 2004, K₁ = 0.01, K₂ = 0.03, as torchmetrics computes it.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure  # takes seconds to import

    _check(reconstruction, target)
    values = structural_similarity_index_measure(
        reconstruction, target, sigma=SSIM_SIGMA, kernel_size=SSIM_WINDOW, data_range=1.0, reduction="none"
    )
    assert isinstance(values, Tensor)  # no second value was asked for
    return values.reshape(len(target))


def _check(reconstruction: Tensor, target: Tensor) -> None:
    if reconstruction.shape != target.shape:
        raise MetricError(
            f"Expected reconstructions and images of one shape [batch, channel, height, width]; found "
            f"{tuple(reconstruction.shape)} and {tuple(target.shape)}."
        )
    for name, images in (("reconstructions", reconstruction), ("images", target)):
        low, high = torch.aminmax(images.detach())
        if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # written so that NaN is refused
            raise MetricError(
                f"Expected {name} in [0, 1]; found values from {low:g} to {high:g}. Clamp or rescale them."
            )
