"""The two parties of a split model, and the two ways they train: in one process, or exchanging only z and ∂L/∂z."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cem.config import Run, Training
from cem.data.loader import Batch
from cem.defenses import Defense
from cem.surrogates import Surrogate
from cem.training.distributed import World
from cem.training.gradients import (
    NonFinite,
    Readings,
    clipping,
    descend,
    first_nonfinite,
    grad_norm,
    read,
    require_finite,
)
from cem.training.objective import ClientObjective, Scalar, Score, Sent, objective, score
from cem.types import Images, Labels, Smashed

# Finite, or the training stops.
_SERVER = ("cross_entropy", "server_grad_norm")
_CLIENT = ("defense_penalty", "cross_entropy_grad_norm", "defense_grad_norm", "client_grad_norm")
# Finite, or the surrogate sits the batch out. Its leakage may be infinite: it is, without noise.
_GUARDED = ("surrogate_loss", "surrogate_grad_norm", "fit_loss", "fit_grad_norm")
_OF_SURROGATE = (*_GUARDED, "leakage_nats", "conditional_nats", "intra_class_mse")


class Step(NamedTuple):
    """What a batch's step measured, and why it went without the surrogate, if it did."""

    readings: Readings
    failure: NonFinite | None


@dataclass
class Server:
    """Has the classifier and the labels; sees z and answers ∂L/∂z."""

    classifier: nn.Module
    optimizer: torch.optim.Optimizer
    cfg: Training
    world: World = field(default_factory=World)

    def score(self, z: Smashed, labels: Labels) -> Score:
        """CE(classifier(z), y)."""
        self.optimizer.zero_grad()
        with _precision(self.cfg, z):
            logits = self.classifier(self.world.part(z))
        return score(self.world.whole(logits), labels, z.dtype)

    def answer(self, z: Smashed, labels: Labels) -> tuple[Smashed, Readings]:
        """Make a step on z as it came over the network; give back ∂CE/∂z."""
        z.requires_grad_()
        found = self.score(z, labels)
        found.cross_entropy.backward()  # type: ignore[no-untyped-call]
        self.world.sum_gradients(self.classifier)
        readings = read(self.values(found))
        readings |= self.step(readings)
        assert z.grad is not None
        return z.grad, readings

    def values(self, found: Score) -> dict[str, Scalar]:
        """What is to be read of a step, after the backward pass."""
        return found._asdict() | {"server_grad_norm": grad_norm(self.classifier)}

    def step(self, readings: Readings) -> Readings:
        """Descend along the gradient, and tell how it was clipped.

        Raises NonFiniteError, before it, when the gradient or the cross entropy is not finite.
        """
        require_finite(readings, _SERVER)
        limit = self.cfg.max_grad_norm
        return clipping("server", descend(self.optimizer, readings["server_grad_norm"], limit), limit)


@dataclass
class Client(ClientObjective):
    """Has the images, the encoder, the defence and the surrogate; descends on its terms and on what the server answers.

    surrogate_optimizer: the surrogate's own Adam, if it has one.
    """

    encoder: nn.Module
    optimizer: torch.optim.Optimizer
    surrogate_optimizer: torch.optim.Optimizer | None
    cfg: Training
    world: World = field(default_factory=World)

    def send(self, images: Images, labels: Labels, weight: float, with_surrogate: bool) -> Sent:
        """z = corrupt(ẑ) and the client's own terms; see ClientObjective."""
        self.optimizer.zero_grad()
        if self.surrogate_optimizer is not None:
            self.surrogate_optimizer.zero_grad()
        with _precision(self.cfg, images):
            clean = self.encoder(self.world.part(images))
        clean = self.world.whole(clean.to(images.dtype))
        self.defense.learn(images, clean.detach(), labels)
        return self.terms(images, clean, labels, weight, with_surrogate)

    def receive(self, sent: Sent, gradient: Smashed) -> None:
        """Backward of z with the server's ∂CE/∂z, and of the client's own terms, in one pass."""
        if sent.own.requires_grad:
            torch.autograd.backward([sent.z, sent.own], [gradient, None])
        else:
            torch.autograd.backward([sent.z], [gradient])
        self.world.sum_gradients(self.encoder)

    def values(self, sent: Sent) -> dict[str, Scalar]:
        """What is to be read of a step, after the backward pass."""
        values = sent.values | {"client_grad_norm": grad_norm(self.encoder, self.defense.learned)}
        if "surrogate_loss" in values and self.routing != "frozen":
            values["fit_grad_norm"] = grad_norm(self.surrogate)
        return values

    def step(self, readings: Readings) -> Step:
        """Descend along the gradient, without the surrogate's part where that is not finite.

        Raises NonFiniteError, before it, when anything else is not finite.
        """
        require_finite(readings, _CLIENT)
        failure = first_nonfinite(readings, _GUARDED)
        if failure is not None:
            for parameter in self.surrogate.parameters():
                parameter.grad = None  # optimizers pass these by
            readings = {name: value for name, value in readings.items() if name not in _OF_SURROGATE}
        elif self.routing == "shared" and "fit_grad_norm" in readings:
            readings["client_grad_norm"] = math.hypot(readings["client_grad_norm"], readings["fit_grad_norm"])
        limit = self.cfg.max_grad_norm
        factor = descend(self.optimizer, readings["client_grad_norm"], limit)
        if self.surrogate_optimizer is not None:
            self.surrogate_optimizer.step()
        return Step(readings | clipping("client", factor, limit), failure)


def train_batch(client: Client, server: Server, batch: Batch, weight: float, with_surrogate: bool) -> Step:
    """One step of both parties on the objective.

    Both protocols compute the same gradients: `joint` by one backward pass over one scalar, `split` by the two passes
    that a network would lie between. weight: λ(t). Raises NonFiniteError.
    """
    sent = client.send(batch.images, batch.labels, weight, with_surrogate)
    if client.cfg.protocol == "joint":
        found = server.score(sent.z, batch.labels)
        objective(found, sent).backward()  # type: ignore[no-untyped-call]
        client.world.sum_gradients(client.encoder, server.classifier)
        of_server, of_client = server.values(found), client.values(sent)
        together = read(of_server | of_client)  # at once: each reading waits for the device
        readings, own = ({name: together[name] for name in values} for values in (of_server, of_client))
        readings |= server.step(readings)
    else:
        gradient, readings = server.answer(sent.z.detach(), batch.labels)
        client.receive(sent, gradient)
        own = read(client.values(sent))
    step = client.step(own)
    return step._replace(readings=readings | step.readings)


def make_parties(
    run: Run,
    encoder: nn.Module,
    classifier: nn.Module,
    defense: Defense,
    surrogate: Surrogate,
    generators: dict[str, torch.Generator],
    world: World | None = None,
) -> tuple[Client, Server]:
    """Client and server of a run, each with its SGD; all parts must be on the device that trains.

    world: the processes that make it; absent: this one. Encoder and classifier are made to work in it.
    """
    world = world or World()
    for half in (encoder, classifier):
        world.share(half)
    settings, learned = run.surrogate, defense.learned
    routing = settings.fitted_by
    adam = torch.optim.Adam(surrogate.parameters(), lr=settings.own_lr) if routing == "own" else None
    client = Client(
        defense=defense,
        surrogate=surrogate,
        routing=routing,
        noise=generators["noise"],
        draws=generators["surrogate"],
        encoder=encoder,
        optimizer=_sgd(run.training, encoder, learned, *([surrogate] if routing == "shared" else []), steady=learned),
        surrogate_optimizer=adam,
        cfg=run.training,
        world=world,
    )
    return client, Server(classifier, _sgd(run.training, classifier), run.training, world)


def _sgd(cfg: Training, *modules: nn.Module, steady: nn.Module | None = None) -> torch.optim.Optimizer:
    """SGD on the parameters of these modules, in this order. Those of `steady`, one of the modules, do not decay.

    They are logarithms of sizes and shares of noise, and nobody asked for these to be drawn to 1, or to each other.
    """
    kept = set() if steady is None else set(steady.parameters())
    groups = [
        {"params": list(some), "weight_decay": cfg.weight_decay if fades else 0.0}
        for fades, some in groupby(
            (parameter for module in modules for parameter in module.parameters()), lambda one: one not in kept
        )
    ]
    return torch.optim.SGD(groups, cfg.lr, cfg.momentum)


def _precision(cfg: Training, like: Tensor) -> AbstractContextManager[None]:
    return torch.autocast(like.device.type, torch.bfloat16, enabled=cfg.precision == "bf16")
