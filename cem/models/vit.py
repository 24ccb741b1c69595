"""A small vision transformer whose tokens stay laid out as the grid of their patches, in stages."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.config import VitSmall
from cem.models.split import Architecture, ImageShape

Grid = Float[Tensor, "batch number rows columns"]  # a token of so many numbers for each patch


class Positions(nn.Module):
    """Adds a learned vector to each position of the grid."""

    def __init__(self, numbers: int, side: int) -> None:
        super().__init__()
        self.learned = nn.Parameter(torch.empty(1, numbers, side, side))

    def draw(self, generator: torch.Generator) -> None:
        """First values."""
        nn.init.normal_(self.learned, std=0.02, generator=generator)

    def forward(self, x: Grid) -> Grid:
        return x + self.learned


class TokenNorm(nn.Module):
    """Layer normalisation of each token."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(numbers)

    def forward(self, x: Grid) -> Grid:
        out: Tensor = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return out


class Block(nn.Module):
    """Self-attention and two linear layers, each on normalised tokens and added to them.

    The attention is written out: what attacks and measures differentiate forwards has no derivative in torch's fused
    one on every device.
    """

    def __init__(self, numbers: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(numbers), nn.LayerNorm(numbers)
        self.ask = nn.Linear(numbers, 3 * numbers)
        self.answer = nn.Linear(numbers, numbers)
        self.mlp = nn.Sequential(nn.Linear(numbers, 4 * numbers), nn.GELU(), nn.Linear(4 * numbers, numbers))

    def forward(self, x: Grid) -> Grid:
        tokens: Tensor = x.flatten(2).transpose(1, 2)
        tokens = tokens + self._attention(self.before_attention(tokens))
        tokens = tokens + self.mlp(self.before_mlp(tokens))
        return tokens.transpose(1, 2).reshape(x.shape)

    def _attention(self, tokens: Float[Tensor, "batch token number"]) -> Float[Tensor, "batch token number"]:
        parts = self.ask(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        weight = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])).softmax(-1)
        out: Tensor = self.answer((weight @ value).transpose(1, 2).flatten(2))
        return out


def build_vit(cfg: VitSmall, image_shape: ImageShape, num_classes: int) -> Architecture:
    """Stages: patches and their positions, the blocks, the mean of the normalised tokens. Head: one linear layer.

    Without a class token: z is the whole of what the server needs, and has the image's layout. Source: Dosovitskiy et
    al. 2021 (arXiv 2010.11929); Beyer, Zhai & Kolesnikov 2022 (arXiv 2205.01580) for the mean in place of the token.
    """
    channels, side, _ = image_shape
    numbers = cfg.heads * max(1, round(64 * cfg.width))
    blocks: list[list[nn.Module]] = [[Block(numbers, cfg.heads)] for _ in range(cfg.depth)]
    stages: list[list[nn.Module]] = [
        [nn.Conv2d(channels, numbers, cfg.patch, cfg.patch), Positions(numbers, side // cfg.patch)],
        *blocks,
        [TokenNorm(numbers), nn.AdaptiveAvgPool2d(1)],
    ]
    return Architecture(stages, [nn.Flatten(), nn.Linear(numbers, num_classes)])
