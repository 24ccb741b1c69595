"""What a study makes, and what can be known to be wrong before any job starts; it needs no torch."""

from cem.planning.plan import ATTACK_FILES, Plan

__all__ = ["ATTACK_FILES", "Plan"]
