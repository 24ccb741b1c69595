"""Defences: what is applied before z leaves the client, and terms added to the encoder's objective."""

from cem.defenses.base import (
    Defense,
    Mechanism,
    Place,
    defense_of,
    initial_noise_std,
    load_defense,
    make_defense,
)
from cem.defenses.channel import Channel, NotApplicable, Observed
from cem.defenses.noise import GaussianNoise, LaplaceNoise

__all__ = [
    "Channel",
    "Defense",
    "GaussianNoise",
    "LaplaceNoise",
    "Mechanism",
    "NotApplicable",
    "Observed",
    "Place",
    "defense_of",
    "initial_noise_std",
    "load_defense",
    "make_defense",
]
