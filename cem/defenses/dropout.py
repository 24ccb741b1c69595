"""Dropout of z."""

from dataclasses import dataclass

import torch

from cem.config import Dropout
from cem.defenses.base import Mechanism
from cem.types import Smashed


@dataclass(frozen=True)
class DropoutDefense(Mechanism):
    """Zeroes each value with probability `rate`, and rescales none. Source: docs/theory.md, "The defences"."""

    cfg: Dropout

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        kept = torch.rand(smashed.shape, generator=generator, device=smashed.device) >= self.cfg.rate
        return smashed * kept
