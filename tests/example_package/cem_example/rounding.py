"""Rounding of z."""

from dataclasses import dataclass

import torch

from cem.defenses import Mechanism
from cem.types import Smashed
from cem_example.settings import Rounding


@dataclass(frozen=True)
class RoundingDefense(Mechanism):
    """Rounds z; the gradient passes as if it did not, since that of a step is zero."""

    cfg: Rounding

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        steps = self.cfg.levels - 1
        rounded = (smashed.clamp(0, 1) * steps).round() / steps
        return smashed + (rounded - smashed).detach()
