"""Defences: what is applied before z leaves the client, and terms added to the encoder's objective."""

from cem.defenses.base import Defense, Mechanism, make_defense

__all__ = ["Defense", "Mechanism", "make_defense"]
