"""Model inversion attacks: what an attacker rebuilds from z, and nothing the attacker could not have."""

from cem.attacks.base import Attack, AttackError, Fitted, Knowledge, Server
from cem.config import AttackSettings
from cem.jobs.state import StateStore

__all__ = ["Attack", "AttackError", "Fitted", "Knowledge", "Server", "make_attack"]


def make_attack(cfg: AttackSettings, store: StateStore | None = None) -> Attack:
    """The attack that settings describe, not yet fitted. store: where a learned one keeps the state of its fit."""
    attack: Attack = cfg.load()(cfg, store)
    return attack
