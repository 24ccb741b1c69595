"""Sparse coding of z: the defence is in the encoder."""

from dataclasses import dataclass

from cem.config import SparseCoding
from cem.defenses.base import Mechanism


@dataclass(frozen=True)
class SparseCodingDefense(Mechanism):
    """What leaves the encoder has gone through it: see cem/models/sparse_coding.py. Nothing is done after that."""

    cfg: SparseCoding
