"""Gaussian noise: the channel between client and server."""

import torch

from cem.types import Smashed


def add_noise(clean: Smashed, noise_std: float, generator: torch.Generator) -> Smashed:
    """ẑ + σ·N(0, I). Source: docs/theory.md, "The defences"."""
    if noise_std == 0:
        return clean
    noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    return clean + noise_std * noise
