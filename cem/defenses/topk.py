"""Pruning of z to its largest values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cem.config import TopK
from cem.defenses.base import Mechanism
from cem.types import Smashed


@dataclass(frozen=True)
class TopKDefense(Mechanism):
    """Zeroes the smallest `fraction` of the values of each image, or of the batch, by magnitude, to the nearest number.

    Source: docs/theory.md, "The defences".
    """

    cfg: TopK

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        flat: Tensor = smashed.flatten(1) if self.cfg.scope == "image" else smashed.reshape(1, -1)
        pruned = self.cfg.zeros(flat.shape[1])
        smallest = flat.abs().topk(pruned, dim=1, largest=False).indices
        return flat.scatter(1, smallest, 0.0).view_as(smashed)
