"""The two parties of a split model, and the two ways they train: in one process, or exchanging only z and ∂L/∂z."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cem.config import Run, Training
from cem.data.loader import Batch
from cem.defenses import Defense, make_defense
from cem.surrogates import Surrogate
from cem.training.gradients import (
    NonFinite,
    Readings,
    descend,
    first_nonfinite,
    grad_norm,
    guard,
    read,
    require_finite,
    watched,
)
from cem.types import Images, Labels, Smashed

# Finite, or the training stops.
_SERVER = ("cross_entropy", "server_grad_norm")
_CLIENT = ("defense_penalty", "cross_entropy_grad_norm", "defense_grad_norm", "client_grad_norm")
# Finite, or the surrogate sits the batch out. Its leakage may be infinite: it is, without noise.
_GUARDED = ("surrogate_loss", "surrogate_grad_norm", "fit_loss", "fit_grad_norm")
_OF_SURROGATE = (*_GUARDED, "leakage_nats", "intra_class_mse")


class Step(NamedTuple):
    """What a batch's step measured, and why it went without the surrogate, if it did."""

    readings: Readings
    failure: NonFinite | None


@dataclass
class Sent:
    """What the client makes of a batch: z for the server, the scalar that stays, and readings of both.

    The gradient norms among the values come with the backward pass. The values are detached: hooks of the graph hold
    them, and a value that held the graph would keep both in memory for good.
    """

    z: Smashed
    own: Float[Tensor, ""]
    values: dict[str, Float[Tensor, ""]]


class Score(NamedTuple):
    """What the server makes of z."""

    cross_entropy: Float[Tensor, ""]
    train_accuracy: Float[Tensor, ""]


@dataclass
class Server:
    """Has the classifier and the labels; sees z and answers ∂L/∂z."""

    classifier: nn.Module
    optimizer: torch.optim.Optimizer
    cfg: Training

    def score(self, z: Smashed, labels: Labels) -> Score:
        """CE(classifier(z), y)."""
        self.optimizer.zero_grad()
        with _precision(self.cfg, z):
            logits = self.classifier(z)
        right = logits.argmax(1) == labels
        return Score(cross_entropy(logits.to(z.dtype), labels), right.to(z.dtype).mean())

    def answer(self, z: Smashed, labels: Labels) -> tuple[Smashed, Readings]:
        """Make a step on z as it came over the network; give back ∂CE/∂z."""
        z.requires_grad_()
        score = self.score(z, labels)
        score.cross_entropy.backward()  # type: ignore[no-untyped-call]
        readings = self.step(score)
        assert z.grad is not None
        return z.grad, readings

    def step(self, score: Score) -> Readings:
        """Descend along the gradient. Raises NonFiniteError, before it, when it or the cross entropy is not finite."""
        readings = read(score._asdict() | {"server_grad_norm": grad_norm(self.classifier)})
        require_finite(readings, _SERVER)
        descend(self.optimizer, readings["server_grad_norm"], self.cfg.max_grad_norm)
        return readings


@dataclass
class Client:
    """Has the images, the encoder, the defence and the surrogate; its objective is CE + Σ defence terms + λ·surrogate.

    routing: who fits the surrogate's own parameters: its own Adam (on `fit_loss`), this client's optimizer (shared), or
    nobody (frozen; also when it has none). noise, draws: generators of the defence and of the surrogate.
    """

    encoder: nn.Module
    defense: Defense
    surrogate: Surrogate
    routing: Literal["own", "shared", "frozen"]
    optimizer: torch.optim.Optimizer
    surrogate_optimizer: torch.optim.Optimizer | None
    noise: torch.Generator
    draws: torch.Generator
    cfg: Training

    def send(self, images: Images, labels: Labels, weight: float, measured: bool) -> Sent:
        """z = corrupt(ẑ), and the client's own terms. Each term has an alias of ẑ to itself, to watch its gradient.

        measured: whether the surrogate is computed. At λ = 0 it then adds nothing but the fit of its own parameters.
        """
        self.optimizer.zero_grad()
        if self.surrogate_optimizer is not None:
            self.surrogate_optimizer.zero_grad()
        with _precision(self.cfg, images):
            clean = self.encoder(images)
        clean = clean.to(images.dtype)
        values: dict[str, Tensor] = {}
        z = self.defense.corrupt(watched(clean, "cross_entropy_grad_norm", values), self.noise)
        own = self.defense.penalty(images, watched(clean, "defense_grad_norm", values))
        if own.requires_grad:
            values["defense_penalty"] = own.detach()
        if measured:
            own = own + self._surrogate_terms(clean, labels, weight, values)
        return Sent(z, own, values)

    def _surrogate_terms(
        self, clean: Smashed, labels: Labels, weight: float, values: dict[str, Tensor]
    ) -> Float[Tensor, ""]:
        """λ · surrogate(ẑ, y), and the fit of the surrogate's own parameters on the detached ẑ.

        Own parameters get no gradient from λ · surrogate unless they share the client's optimizer. When one of the two
        losses or the gradient at ẑ is not finite, a zero gradient goes on to the encoder.
        """
        alias = clean.view_as(clean)
        with _constant(self.surrogate, keep=self.routing == "shared"), torch.set_grad_enabled(weight > 0):
            loss, values["leakage_nats"], values["intra_class_mse"] = self.surrogate(alias, labels, self.draws)
        values["surrogate_loss"] = loss.detach()
        finite, own = torch.isfinite(loss), weight * loss if weight > 0 else torch.zeros_like(loss)
        if self.routing == "own":
            fit = self.surrogate.fit_loss(clean.detach(), labels, self.draws)
            if fit is not None:
                values["fit_loss"] = fit.detach()
                finite, own = finite & torch.isfinite(fit), own + fit
        if loss.requires_grad:
            guard(alias, finite, "surrogate_grad_norm", values)
        return own

    def receive(self, sent: Sent, gradient: Smashed) -> None:
        """Backward of z with the server's ∂CE/∂z, and of the client's own terms, in one pass."""
        if sent.own.requires_grad:
            torch.autograd.backward([sent.z, sent.own], [gradient, None])
        else:
            torch.autograd.backward([sent.z], [gradient])

    def step(self, sent: Sent) -> Step:
        """Descend along the gradient, without the surrogate's part where that is not finite.

        Raises NonFiniteError, before it, when anything else is not finite.
        """
        values = sent.values | {"client_grad_norm": grad_norm(self.encoder)}
        if "surrogate_loss" in values and self.routing != "frozen":
            values["fit_grad_norm"] = grad_norm(self.surrogate)
        readings = read(values)
        require_finite(readings, _CLIENT)
        failure = first_nonfinite(readings, _GUARDED)
        if failure is not None:
            for parameter in self.surrogate.parameters():
                parameter.grad = None  # optimizers pass these by
            readings = {name: value for name, value in readings.items() if name not in _OF_SURROGATE}
        elif self.routing == "shared" and "fit_grad_norm" in readings:
            readings["client_grad_norm"] = math.hypot(readings["client_grad_norm"], readings["fit_grad_norm"])
        descend(self.optimizer, readings["client_grad_norm"], self.cfg.max_grad_norm)
        if self.surrogate_optimizer is not None:
            self.surrogate_optimizer.step()
        return Step(readings, failure)


def train_batch(client: Client, server: Server, batch: Batch, weight: float, measured: bool) -> Step:
    """One step of both parties on CE(classifier(corrupt(ẑ)), y) + Σ defence terms + λ(t) · surrogate(ẑ, y).

    Both protocols compute the same gradients: `joint` by one backward pass over one scalar, `split` by the two passes
    that a network would lie between. Raises NonFiniteError.
    """
    sent = client.send(batch.images, batch.labels, weight, measured)
    if client.cfg.protocol == "joint":
        score = server.score(sent.z, batch.labels)
        (score.cross_entropy + sent.own).backward()  # type: ignore[no-untyped-call]
        readings = server.step(score)
    else:
        gradient, readings = server.answer(sent.z.detach(), batch.labels)
        client.receive(sent, gradient)
    step = client.step(sent)
    return step._replace(readings=readings | step.readings)


def make_parties(
    run: Run,
    encoder: nn.Module,
    classifier: nn.Module,
    surrogate: Surrogate,
    generators: dict[str, torch.Generator],
) -> tuple[Client, Server]:
    """Client and server of a run, each with its SGD; the modules must be on the device that trains."""
    settings = run.surrogate
    routing = settings.fitted_by
    adam = torch.optim.Adam(surrogate.parameters(), lr=settings.own_lr) if routing == "own" else None
    client = Client(
        encoder,
        make_defense(run.noise_std, run.defenses),
        surrogate,
        routing,
        _sgd(run.training, encoder, *([surrogate] if routing == "shared" else [])),
        adam,
        generators["noise"],
        generators["surrogate"],
        run.training,
    )
    return client, Server(classifier, _sgd(run.training, classifier), run.training)


def _sgd(cfg: Training, *modules: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    return torch.optim.SGD(parameters, cfg.lr, cfg.momentum, weight_decay=cfg.weight_decay)


def _precision(cfg: Training, like: Tensor) -> AbstractContextManager[None]:
    return torch.autocast(like.device.type, torch.bfloat16, enabled=cfg.precision == "bf16")


@contextmanager
def _constant(module: nn.Module, keep: bool) -> Iterator[None]:
    """Leave a module's parameters out of the graph, unless `keep`."""
    learned = [] if keep else [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
