"""Noise for local differential privacy."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cem.config import LocalDp
from cem.defenses.base import Mechanism
from cem.defenses.channel import Channel
from cem.defenses.noise import GaussianNoise, LaplaceNoise
from cem.types import Smashed

_NORMS = {"gaussian": 2, "laplace": 1}


@dataclass(frozen=True)
class LocalDpDefense(Mechanism):
    """Clips each image's z, and adds noise. Source: docs/theory.md, "The defences"."""

    cfg: LocalDp

    @property
    def channel(self) -> Channel:
        scale = self.cfg.scale
        return GaussianNoise(scale) if self.cfg.mechanism == "gaussian" else LaplaceNoise(math.sqrt(2) * scale)

    def prepare(self, clean: Smashed) -> Smashed:
        if self.cfg.clip is None:
            return clean
        norms: Tensor = torch.linalg.vector_norm(clean.flatten(1), _NORMS[self.cfg.mechanism], dim=1)
        return clean * (self.cfg.clip / norms.clamp_min(self.cfg.clip)).view(-1, 1, 1, 1)

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        return self.channel.send(self.prepare(smashed), generator)
