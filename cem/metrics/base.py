"""What all metrics check, and the precision they compute in."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem import CemError

TOLERANCE = 1e-6  # how far rounding may put a value outside [0, 1]
AnyImages = Float[Tensor, "_ _ _ _"]  # [batch, channel, height, width]; that two of them agree is checked below


class MetricError(CemError):
    """Images that cannot be compared, or a metric that lacks what it needs."""


def comparable(reconstruction: AnyImages, target: AnyImages) -> tuple[AnyImages, AnyImages]:
    """The images, in float32 or better: half precision would lose the small differences that metrics measure.

    Raises MetricError for different shapes and for values outside [0, 1].
    """
    if reconstruction.shape != target.shape:
        raise MetricError(
            f"Expected reconstructions and images of one shape [batch, channel, height, width]; found "
            f"{tuple(reconstruction.shape)} and {tuple(target.shape)}."
        )
    dtype = torch.promote_types(torch.promote_types(reconstruction.dtype, target.dtype), torch.float32)
    return in_unit_interval(reconstruction, "reconstructions").to(dtype), in_unit_interval(target, "images").to(dtype)


def in_unit_interval(images: AnyImages, name: str) -> AnyImages:
    """The images as they came. Raises MetricError for values outside [0, 1]."""
    low, high = torch.aminmax(images.detach())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # written so that NaN is refused
        raise MetricError(f"Expected {name} in [0, 1]; found values from {low:g} to {high:g}. Clamp or rescale them.")
    return images
