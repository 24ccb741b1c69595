"""Errors of pixels."""

from cem.metrics.base import AnyImages, comparable
from cem.types import PerImage

PSNR_CAP_DB = 100.0  # of identical images, for which the ratio is infinite


def mse(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Mean squared error over an image's channels and pixels; images in [0, 1].

    Raises MetricError for different shapes and for values outside [0, 1], as all metrics of pairs do.
    """
    reconstruction, target = comparable(reconstruction, target)
    return (reconstruction - target).square().flatten(1).mean(1)


def psnr_db(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Peak signal-to-noise ratio, 10 log₁₀(1 / MSE), in decibels; at most PSNR_CAP_DB."""
    return -10 * mse(reconstruction, target).clamp_min(10 ** (-PSNR_CAP_DB / 10)).log10()
