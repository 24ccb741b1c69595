"""Dropout that draws from its own generator, so that a run's randomness can be saved and resumed."""

from typing import Protocol

import torch
from torch import Tensor, nn


class Rand(Protocol):
    """Draws as `torch.rand` does."""

    def __call__(self, size: torch.Size, *, generator: torch.Generator, device: torch.device) -> Tensor: ...


class Dropout(nn.Module):
    """Zeroes values at a rate and scales up the others, in training only.

    `generator` must be set before training (see `seed_dropout`) and live on the device of the input. rand: what draws
    with it, in place of `torch.rand`.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None
        self.rand: Rand = torch.rand

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.generator is None:
            raise RuntimeError("expected a generator for dropout, found none: call seed_dropout before training")
        kept = self.rand(self._independent(x), generator=self.generator, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)

    def _independent(self, x: Tensor) -> torch.Size:
        """Shape of what is drawn."""
        return x.shape


class StochasticDepth(Dropout):
    """Dropout of all values of an image at once, or of none."""

    def _independent(self, x: Tensor) -> torch.Size:
        return torch.Size([len(x), *[1] * (x.ndim - 1)])


def seed_dropout(module: nn.Module, generator: torch.Generator | None) -> None:
    """Let every dropout inside `module` draw from `generator`; None: from none, so that it asks for one."""
    for child in module.modules():
        if isinstance(child, Dropout):
            child.generator = generator
