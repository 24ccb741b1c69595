"""Structural similarity, at one scale and at five."""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from cem.metrics.base import AnyImages, MetricError, comparable
from cem.types import PerImage

SSIM_WINDOW, SSIM_STD = 11, 1.5  # of the Gaussian, in pixels
HALF = SSIM_WINDOW // 2
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM, finest scale first
SMALLEST_SIDE = SSIM_WINDOW << len(SCALE_WEIGHTS) - 1  # of MS-SSIM: its window must fit a side halved four times
_C1, _C2 = 0.01**2, 0.03**2
_VALUES_AT_ONCE = 2**17  # of the images compared at once: what is derived from them stays in the cache


def ssim(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Structural similarity under an 11×11 Gaussian window of σ = 1.5, averaged over an image; 1 for identical images.

    Borders are reflected, so that every pixel has a window. Sides need at least 6 pixels (MetricError below that).

    Source: Wang, Bovik, Sheikh & Simoncelli 2004, K₁ = 0.01, K₂ = 0.03; population variances.
    """
    reconstruction, target = comparable(reconstruction, target)
    if not ssim_possible(min(target.shape[2:])):
        raise MetricError(
            f"SSIM's window of {SSIM_WINDOW} pixels reaches {HALF} beyond a border, where the image is reflected: "
            f"expected sides of at least {HALF + 1} pixels, found {tuple(target.shape[2:])}. Leave it out at this size."
        )
    size = max(1, _VALUES_AT_ONCE // target[0].numel())
    pairs = zip(torch.split(reconstruction, size), torch.split(target, size), strict=True)
    return torch.cat([similarity(*pair) for pair in pairs])


def ssim_possible(side: int) -> bool:
    """Whether images whose smaller side this is are large enough to be reflected at their borders."""
    return side > HALF


def similarity(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """`ssim` without its checks, to train with: it takes any values, and its backward pass is deterministic."""
    return _whole(*_maps(reconstruction, target)).to(target.dtype)


def ms_ssim_possible(side: int) -> bool:
    """Whether images whose smaller side this is have five scales."""
    return side >= SMALLEST_SIDE


def ms_ssim(reconstruction: AnyImages, target: AnyImages) -> PerImage:
    """Similarity at five scales, each half as fine as the one before: Π contrastᵢ^wᵢ, the coarsest with its luminance.

    A negative similarity of a scale counts as 0. Contrasts are averaged over the windows that lie inside the image, the
    coarsest scale over all windows, as torchmetrics does. Raises MetricError for sides below 176: `ms_ssim_possible`.

    Source: Wang, Simoncelli & Bovik 2003.
    """
    reconstruction, target = comparable(reconstruction, target)
    if not ms_ssim_possible(min(target.shape[2:])):
        raise MetricError(
            f"MS-SSIM needs sides of at least {SMALLEST_SIDE} pixels, for five scales of its window of {SSIM_WINDOW}; "
            f"found {tuple(target.shape[2:])}. Leave ms_ssim out at this size."
        )
    product, dtype = torch.ones_like(target[:, 0, 0, 0]), target.dtype
    for weight in SCALE_WEIGHTS[:-1]:
        _, contrast = _maps(reconstruction, target)
        inside = contrast[..., HALF:-HALF, HALF:-HALF]
        product = product * inside.flatten(1).mean(1).clamp_min(0) ** weight
        reconstruction, target = avg_pool2d(reconstruction, 2), avg_pool2d(target, 2)
    return (product * _whole(*_maps(reconstruction, target)).clamp_min(0) ** SCALE_WEIGHTS[-1]).to(dtype)


def _whole(luminance: Tensor, contrast: Tensor) -> PerImage:
    return (luminance * contrast).flatten(1).mean(1)


def _maps(x: AnyImages, y: AnyImages) -> tuple[AnyImages, AnyImages]:
    """Luminance and contrast-structure term about each pixel.

    The window is a product of one over rows and one over columns, each a small matrix (reflection included): two
    products of matrices take a fraction of the time of torch's convolution.
    """
    x, y = x.double(), y.double()  # in single precision, variances of bright flat regions are mostly rounding
    rows, columns = (_blur(side, x.device) for side in x.shape[2:])
    mean_x, mean_y, xx, yy, xy = (rows @ (torch.cat([x, y, x * x, y * y, x * y]) @ columns.T)).chunk(5)
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * product + _C1) / (squares + _C1)
    contrast = (2 * (xy - product) + _C2) / (xx + yy - squares + _C2)
    return luminance, contrast


@cache
def _blur(side: int, device: torch.device) -> Float[Tensor, "side side"]:
    """Row i: weights of the pixels of a row in the window about pixel i; beyond the ends it is reflected."""
    offset = torch.arange(-HALF, HALF + 1)
    weight = torch.exp(-offset.double().square() / (2 * SSIM_STD**2))
    pixel = (torch.arange(side)[:, None] + offset).abs()
    pixel = torch.minimum(pixel, 2 * (side - 1) - pixel)
    matrix = torch.zeros(side, side, dtype=torch.float64)
    return matrix.scatter_add_(1, pixel, (weight / weight.sum()).expand(side, -1)).to(device)
