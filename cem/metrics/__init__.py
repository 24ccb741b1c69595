"""How close a reconstruction is to its image: one number for each image, never averaged here."""

from cem.metrics.base import MetricError
from cem.metrics.identification import OTHERS, Gallery, Pools, identified
from cem.metrics.perceptual import VGG16_SHA256, load_lpips
from cem.metrics.pixels import PSNR_CAP_DB, mse, psnr_db
from cem.metrics.structure import SSIM_STD, SSIM_WINDOW, ms_ssim, ms_ssim_possible, similarity, ssim, ssim_possible

__all__ = [
    "OTHERS",
    "PSNR_CAP_DB",
    "SSIM_STD",
    "SSIM_WINDOW",
    "VGG16_SHA256",
    "Gallery",
    "MetricError",
    "Pools",
    "identified",
    "load_lpips",
    "ms_ssim",
    "ms_ssim_possible",
    "mse",
    "psnr_db",
    "similarity",
    "ssim",
    "ssim_possible",
]
