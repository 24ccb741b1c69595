"""What is done to ẑ before it leaves the client."""

import torch
from torch import Tensor

from cem.types import Smashed


def add_noise(clean: Smashed, noise_std: float, generator: torch.Generator) -> Smashed:
    """ẑ + σ·N(0, I). Source: docs/theory.md, "The defences"."""
    if noise_std == 0:
        return clean
    noise = torch.randn(clean.shape, generator=generator, device=clean.device, dtype=clean.dtype)
    return clean + noise_std * noise


def drop(smashed: Smashed, rate: float, generator: torch.Generator) -> Smashed:
    """Zero each value with probability `rate`, without rescaling the others. Source: docs/theory.md, "The defences"."""
    kept = torch.rand(smashed.shape, generator=generator, device=smashed.device) >= rate
    return smashed * kept


def keep_largest(smashed: Smashed, fraction: float) -> Smashed:
    """Zero the smallest `fraction` of each image's values, by magnitude. Source: docs/theory.md, "The defences"."""
    flat: Tensor = smashed.flatten(1)
    pruned = int(fraction * flat.shape[1])
    smallest = flat.abs().topk(pruned, dim=1, largest=False).indices
    return flat.scatter(1, smallest, 0.0).view_as(smashed)
