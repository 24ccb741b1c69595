"""A sparse code in the encoder: z through a dictionary, its small coefficients left out, and back."""

import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, softshrink

from cem.config import SparseCoding
from cem.types import Smashed


class SparseCode(nn.Module):
    """z ← Wᵀ soft(W z) at each place of the map, soft(a) = sign(a) · max(|a| − threshold, 0).

    W [codes, channels] starts with orthonormal columns, so that without the threshold z is as it was.
    Source: docs/theory.md, "The defences".
    """

    def __init__(self, cfg: SparseCoding, channels: int) -> None:
        super().__init__()
        self.threshold = cfg.threshold
        self.dictionary = nn.Parameter(torch.empty(cfg.expansion * channels, channels, 1, 1))

    def draw(self, generator: torch.Generator) -> None:
        """First values of the dictionary, which is on the generator's device."""
        nn.init.orthogonal_(self.dictionary, generator=generator)

    def forward(self, z: Smashed) -> Smashed:
        code = softshrink(conv2d(z, self.dictionary), self.threshold)
        return conv_transpose2d(code, self.dictionary)
