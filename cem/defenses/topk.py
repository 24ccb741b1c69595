"""Pruning of z to its largest values."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cem.config import TopK
from cem.defenses.base import Mechanism
from cem.types import Smashed


@dataclass(frozen=True)
class TopKDefense(Mechanism):
    """Zeroes the smallest `fraction` of the values of each image, or of the batch, by magnitude.

    Source: docs/theory.md, "The defences".
    """

    cfg: TopK

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        flat: Tensor = smashed.flatten(1) if self.cfg.scope == "image" else smashed.reshape(1, -1)
        pruned = int(self.cfg.fraction * flat.shape[1])  # cut off: 28 of 100 by 0.29; rounded when NUMERICS next rises
        smallest = flat.abs().topk(pruned, dim=1, largest=False).indices
        return flat.scatter(1, smallest, 0.0).view_as(smashed)
