"""λ(t), and the epochs whose model may be chosen."""

import math

from cem.config import LEGACY_LR, SurrogateSettings, Training

_LEGACY_SCALE = 0.001


def first_selectable(surrogate: SurrogateSettings, cfg: Training) -> int:
    """First epoch whose model may be chosen: from it on, learning rate, λ(t) and threshold are those of the last one.

    Selecting among earlier epochs would favour models that the defence has not finished with, and report them under a
    weight that they never had.
    """
    last = cfg.epochs - 1
    settled = min(math.ceil(max(cfg.milestones, default=0.0) * cfg.epochs), last)
    weights = [surrogate_weight(surrogate, cfg, epoch) for epoch in range(cfg.epochs)]
    others = [epoch for epoch, weight in enumerate(weights) if weight != weights[last]]
    moving = last if surrogate.weight > 0 and surrogate.moves_threshold else 0
    return max(settled, cfg.warmup_epochs, max(others, default=-1) + 1, moving)


def surrogate_computed(surrogate: SurrogateSettings, cfg: Training, epoch: int) -> bool:
    """Whether an epoch (from 0) computes the surrogate: after the shared warm-up, and never when λ is set to 0."""
    return epoch >= cfg.warmup_epochs and surrogate.weight > 0


def surrogate_weight(surrogate: SurrogateSettings, cfg: Training, epoch: int) -> float:
    """λ(t) of an epoch (from 0); 0 during the shared warm-up and the attention module's own.

    constant: λ. ramp: from λ/n to λ over the n epochs after the warm-ups. legacy_lr: λ if lr < 4.1e-4 else λ·0.001/lr,
    as released. Source: docs/theory.md, "The schedules".
    """
    start = cfg.warmup_epochs + surrogate.own_warmup_epochs
    if epoch < start or not surrogate.adds_term:
        return 0.0
    if surrogate.schedule == "ramp":
        return surrogate.weight * (epoch - start + 1) / (cfg.epochs - start)
    if surrogate.schedule == "legacy_lr":
        lr = cfg.lr_at(epoch)
        return surrogate.weight * (1.0 if lr < LEGACY_LR else _LEGACY_SCALE / lr)
    return surrogate.weight
