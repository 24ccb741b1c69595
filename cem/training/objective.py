"""The objective, and whose gradient goes where."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cem.config import AttentionSurrogate, Run, Surrogate, Training
from cem.data.loader import Batch
from cem.defenses import Defense
from cem.training.state import State
from cem.types import Labels


class BatchTerms(NamedTuple):
    """A batch's objective and its parts."""

    objective: Float[Tensor, ""]
    cross_entropy: Float[Tensor, ""]
    defense_penalty: Float[Tensor, ""]
    surrogate_loss: Float[Tensor, ""]
    leakage_nats: Float[Tensor, ""]
    intra_class_mse: Float[Tensor, ""]
    correct: Float[Tensor, ""]


def batch_terms(state: State, batch: Batch, defense: Defense, run: Run, weight: float) -> BatchTerms:
    """CE(classifier(corrupt(ẑ)), y) + Σ defence terms + λ(t) · surrogate(ẑ, y).

    At λ = 0 the surrogate is not computed. The surrogate's own parameters, if any, get no gradient from λ · surrogate
    unless they share the model's optimizer; with an optimizer of their own they are fitted by `fit_loss` on the
    detached ẑ, which is added to the scalar so that one backward serves both.
    """
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=run.training.precision == "bf16"):
        clean = state.encoder(batch.images)
        logits = state.classifier(defense.corrupt(clean, state.generators["noise"]))
    clean = clean.float()
    classification = cross_entropy(logits.float(), batch.labels)
    penalty = defense.penalty(batch.images, clean)
    objective = classification + penalty
    zero = objective.detach().new_zeros(())
    loss = leakage = spread = zero
    if weight > 0:
        routing, draws = _routing(run.surrogate), state.generators["surrogate"]
        with _constant(state.surrogate, keep=routing == "shared"):
            loss, leakage, spread = state.surrogate(clean, batch.labels, draws)
        objective = objective + weight * loss
        if routing == "own":
            objective = objective + state.surrogate.fit_loss(clean.detach(), batch.labels, draws)
    return BatchTerms(objective, classification, penalty, loss, leakage, spread, _correct(logits, batch.labels))


@contextmanager
def _constant(module: nn.Module, keep: bool) -> Iterator[None]:
    """Leave a module's parameters out of the graph, unless `keep`."""
    learned = [] if keep else [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    yield
    for parameter in learned:
        parameter.requires_grad_(True)


def _correct(logits: Float[Tensor, "batch cls"], labels: Labels) -> Float[Tensor, ""]:
    return (logits.argmax(1) == labels).float().mean()


def make_optimizers(
    encoder: nn.Module, classifier: nn.Module, surrogate: nn.Module, cfg: Surrogate, settings: Training
) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer | None]:
    """SGD of the model, and the surrogate's Adam where it has an optimizer of its own."""
    groups = [{"params": [*encoder.parameters(), *classifier.parameters()]}]
    if _routing(cfg) == "shared":
        groups.append({"params": [*surrogate.parameters()]})
    optimizer = torch.optim.SGD(groups, settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    if isinstance(cfg, AttentionSurrogate) and cfg.optimizer == "own":
        return optimizer, torch.optim.Adam(surrogate.parameters(), lr=cfg.lr)
    return optimizer, None


def _routing(cfg: Surrogate) -> str:
    """Who fits the surrogate's own parameters: own, shared, or frozen (also: it has none)."""
    return cfg.optimizer if isinstance(cfg, AttentionSurrogate) else "frozen"
