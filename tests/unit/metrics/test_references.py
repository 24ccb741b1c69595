"""The metrics against two independent packages."""

import numpy as np
import pytest
import torch
from skimage import metrics as skimage
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from cem.metrics import ms_ssim, mse, psnr_db, ssim

SHAPES = [(3, 1, 6, 6), (3, 3, 8, 8), (3, 1, 10, 10), (3, 1, 28, 28), (4, 3, 32, 32), (2, 3, 64, 48)]


def pair(shape, seed=0):
    """Images with structure at several scales, flat and saturated regions, and noisy copies of them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:2], 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=shape[2:], mode="bicubic")
    target = (smooth * 1.5 - 0.25 + 0.1 * torch.randn(shape, generator=generator)).clamp(0, 1)
    target[0] = 0.3
    level = torch.linspace(0.02, 0.5, shape[0]).reshape(-1, 1, 1, 1)
    return (target + level * torch.randn(shape, generator=generator)).clamp(0, 1), target


def each(function, reconstruction, target):
    """What a reference for one image gives for each."""
    values = [function(x, y) for x, y in zip(reconstruction.double().numpy(), target.double().numpy(), strict=True)]
    return torch.tensor(values, dtype=torch.float32)


def close(found, expected):
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_torchmetrics(shape):
    compare_with_torchmetrics(*pair(shape))


@pytest.mark.parametrize(("level", "other"), [(0.95, 0.97), (1.0, 0.99), (0.9, 0.9001)])
def test_torchmetrics_where_images_are_flat_and_bright(level, other):
    x, y = torch.full((2, 3, 16, 16), level), torch.full((2, 3, 16, 16), other)
    x[1, :, :8], y[1, :, :8] = 0.02, 0.03
    compare_with_torchmetrics(x, y)


def compare_with_torchmetrics(x, y):
    a, b = x.double(), y.double()  # in single precision it is itself off by up to 4e-4, where an image is flat
    expected = structural_similarity_index_measure(a, b, sigma=1.5, kernel_size=11, data_range=1.0, reduction="none")
    close(ssim(x, y), expected.reshape(len(x)))
    close(psnr_db(x, y), peak_signal_noise_ratio(a, b, data_range=(0.0, 1.0), reduction="none", dim=(1, 2, 3)))


@pytest.mark.parametrize("shape", SHAPES)
def test_scikit_image(shape):
    """Its SSIM leaves a border of 5 pixels out of the mean; here it gets one that is the reflection of the image."""

    def structure(a, b):
        a, b = (np.pad(image, ((0, 0), (5, 5), (5, 5)), mode="reflect") for image in (a, b))
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
        return skimage.structural_similarity(a, b, data_range=1.0, channel_axis=0, **settings)

    x, y = pair(shape)
    close(ssim(x, y), each(structure, x, y))
    close(mse(x, y), each(skimage.mean_squared_error, x, y))
    close(psnr_db(x, y), each(lambda a, b: skimage.peak_signal_noise_ratio(b, a, data_range=1.0), x, y))


@pytest.mark.parametrize("shape", [(2, 1, 176, 176), (2, 3, 192, 181)])
def test_torchmetrics_at_five_scales(shape):
    x, y = pair(shape)
    expected = multiscale_structural_similarity_index_measure(
        x.double(), y.double(), sigma=1.5, kernel_size=11, data_range=1.0, reduction="none", normalize="relu"
    )
    close(ms_ssim(x, y), expected)
    torch.testing.assert_close(ms_ssim(x, y)[:1], ms_ssim(x[:1], y[:1]), atol=1e-6, rtol=0)
