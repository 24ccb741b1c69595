"""What a decoder minimises."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d, l1_loss, mse_loss

from cem.attacks.base import AttackError
from cem.config import Loss
from cem.types import Images, PerImage

REACH, WIDTH = 5, 1.5  # of SSIM's Gaussian window, in pixels: to either side, and its σ
C1, C2 = 0.01**2, 0.03**2


def weighted_loss(cfg: Loss, reconstruction: Images, target: Images) -> Float[Tensor, ""]:
    """Sum of the errors that have a weight, each a mean over batch, channels and pixels."""
    total = reconstruction.new_zeros(())
    if cfg.mse:
        total = total + cfg.mse * mse_loss(reconstruction, target)
    if cfg.l1:
        total = total + cfg.l1 * l1_loss(reconstruction, target)
    if cfg.ssim:
        total = total + cfg.ssim * (1 - ssim(reconstruction, target).mean())
    return total


def ssim(reconstruction: Images, target: Images) -> PerImage:
    """`cem.metrics.ssim` for training: any values, and a backward pass that repeats itself on a GPU.

    torch's reflecting border, which torchmetrics uses, has no such pass. Sides of 6 pixels at least.
    """
    if min(target.shape[2:]) <= REACH:
        raise AttackError(
            f"SSIM needs sides of {REACH + 1} pixels at least; found {tuple(target.shape)}. Set loss.ssim: 0."
        )
    moments = [reconstruction, target, reconstruction**2, target**2, reconstruction * target]
    mean_r, mean_t, square_r, square_t, product = torch.split(_smooth(torch.cat(moments)), len(target))
    variances = (square_r - mean_r**2).clamp_min(0) + (square_t - mean_t**2).clamp_min(0)
    luminance = (2 * mean_r * mean_t + C1) / (mean_r**2 + mean_t**2 + C1)
    structure = (2 * (product - mean_r * mean_t) + C2) / (variances + C2)
    per_image: Tensor = (luminance * structure).flatten(1).mean(1)
    return per_image


def _smooth(images: Images) -> Images:
    """Local means under the Gaussian window: rows, then columns."""
    offsets = torch.arange(-REACH, REACH + 1, dtype=images.dtype, device=images.device)
    window = (-((offsets / WIDTH) ** 2) / 2).exp()
    window = window / window.sum()
    channels = images.shape[1]
    for axis, kernel in ((2, window.view(1, 1, -1, 1)), (3, window.view(1, 1, 1, -1))):
        side = images.shape[axis]
        before = images.narrow(axis, 1, REACH).flip(axis)
        after = images.narrow(axis, side - 1 - REACH, REACH).flip(axis)
        images = conv2d(torch.cat([before, images, after], axis), kernel.repeat(channels, 1, 1, 1), groups=channels)
    return images
