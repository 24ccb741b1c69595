"""Model inversion attacks: what an attacker rebuilds from z, and nothing the attacker could not have."""

from cem.attacks.base import Attack, AttackError, Fitted, Knowledge, Server
from cem.attacks.class_mean import ClassMeanAttack
from cem.attacks.decoder import DecoderAttack
from cem.attacks.gan import GanAttack
from cem.attacks.linear import LinearAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.attacks.nearest import NearestAttack
from cem.attacks.optimization import OptimizationAttack
from cem.attacks.shadow_model import ShadowModelAttack
from cem.config import Attack as AttackConfig
from cem.config import ClassMean, Decoder, Gan, Linear, MeanImage, Nearest, Optimization, ShadowModel
from cem.jobs.state import StateStore

__all__ = ["Attack", "AttackError", "Fitted", "Knowledge", "Server", "make_attack"]


def make_attack(cfg: AttackConfig, store: StateStore | None = None) -> Attack:
    """The attack that settings describe, not yet fitted. store: where a learned one keeps the state of its fit."""
    match cfg:
        case MeanImage():
            return MeanImageAttack()
        case ClassMean():
            return ClassMeanAttack()
        case Linear():
            return LinearAttack()
        case Nearest():
            return NearestAttack()
        case Decoder():
            return DecoderAttack(cfg, store)
        case Gan():
            return GanAttack(cfg, store)
        case Optimization():
            return OptimizationAttack(cfg, store)
        case ShadowModel():
            return ShadowModelAttack(cfg, store)
