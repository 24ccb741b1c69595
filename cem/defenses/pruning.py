"""Pruning of the client: it acts on the encoder in the middle of a training (cem/training/pruning.py), never on z."""

from dataclasses import dataclass

from cem.config import Pruning
from cem.defenses.base import Mechanism


@dataclass(frozen=True)
class PruningDefense(Mechanism):
    """What leaves the client is that of a smaller encoder; nothing else is done to it."""

    cfg: Pruning
