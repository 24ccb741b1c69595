"""Random changes to a batch of images, drawn for each image on its own, as batched tensor operations."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from cem.config import Augment
from cem.types import Images, RawImages

Shift = Int[Tensor, "batch 2"]  # pixels, down and right: where the crop starts, 0 being the image's corner
Flip = Bool[Tensor, " batch"]
Angle = Float[Tensor, " batch"]  # radians; positive turns the picture clockwise


def augmented(images: RawImages, augment: Augment, generator: torch.Generator) -> Images:
    """Images in [0, 1] after a random crop, flip and rotation. Without any of them, exactly images / 255."""
    if augment == Augment():
        return images / 255
    count, device, padding = len(images), images.device, augment.crop_padding
    shift = torch.randint(-padding, padding + 1, (count, 2), generator=generator, device=device)
    flip = torch.rand(count, generator=generator, device=device) < (0.5 if augment.flip else 0.0)
    if augment.rotation_deg == 0:
        return crop_flip(images, shift, flip, padding) / 255
    turn = torch.rand(count, generator=generator, device=device) * 2 - 1
    return crop_flip_rotate(images / 255, shift, flip, torch.deg2rad(turn * augment.rotation_deg))


def crop_flip(images: RawImages, shift: Shift, flip: Flip, padding: int) -> RawImages:
    """Crop to the same size out of the zero-padded image, then mirror left and right: whole pixels, so exact.

    shift: at most `padding` in size.
    """
    batch, channels, height, width = images.shape
    padded = pad(images, (padding, padding, padding, padding))
    down, right = (shift + padding).unbind(1)
    across = torch.arange(width, device=images.device)
    y = down[:, None] + torch.arange(height, device=images.device)
    x = right[:, None] + torch.where(flip[:, None], across.flip(0), across)
    place = (y[:, :, None] * padded.shape[3] + x[:, None, :]).reshape(batch, 1, -1)
    return padded.flatten(2).gather(2, place.expand(-1, channels, -1)).view_as(images)


def crop_flip_rotate(images: Images, shift: Shift, flip: Flip, angle: Angle) -> Images:
    """The same crop and flip, then a rotation about the centre, resampled bilinearly once; zeros beyond the image.

    One resampling: nothing is blurred twice, and a corner that turns in shows what the crop had left out.
    """
    height, width = images.shape[2:]
    cos, sin = angle.cos(), angle.sin()
    mirror = 1 - 2 * flip.to(images.dtype)
    # grid_sample counts in half widths and half heights from the centre; a rotation acts on pixels.
    matrix = torch.stack([mirror * cos, mirror * sin * (height / width), -sin * (width / height), cos], dim=1).view(
        -1, 2, 2
    )
    start = 2 * torch.stack([shift[:, 1] / width, shift[:, 0] / height], dim=1)
    grid = torch.baddbmm(start[:, :, None], matrix, _centres(height, width, images).expand(len(images), -1, -1))
    grid = grid.view(-1, 2, height, width).permute(0, 2, 3, 1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _centres(height: int, width: int, like: Tensor) -> Float[Tensor, "2 pixel"]:
    """x and y of every pixel's centre, in half widths and half heights from the image's centre."""
    x = (2 * torch.arange(width, device=like.device, dtype=like.dtype) + 1) / width - 1
    y = (2 * torch.arange(height, device=like.device, dtype=like.dtype) + 1) / height - 1
    return torch.stack([x.repeat(height), y.repeat_interleave(width)])
