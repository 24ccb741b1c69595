"""An encoder of the attacker's own: it suits the server's classifier, and what it sends looks like what was seen."""

import sys
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, softplus

from cem.attacks.base import AttackError, Knowledge, SeenZ, Server, hold_out
from cem.attacks.budget import cosine
from cem.attacks.fit_loop import descend
from cem.attacks.standard import Standardised, spread_of
from cem.config import ShadowModel
from cem.jobs.interruption import Checkpoints
from cem.jobs.state import StateStore
from cem.models import make_split, parameter_count, seed_dropout
from cem.models.discriminator import make_discriminator
from cem.storage.tensors import Stateful, subset
from cem.types import Images, Labels, Smashed

BETAS = (0.5, 0.99)
LOOK_EVERY = 200  # steps
UNLIKE = 0.95  # told apart more often, it has not become like the client's encoder
_PLAIN = ("step", "failure", "accuracy", "told_apart")


class ShadowEncoder:
    """Adam on the cross-entropy of the server's classifier, which stays as it is, and against a discriminator that
    tells this encoder's z, as the defence leaves them, from those that were seen.

    The classifier says what a digit's z must mean to it; the discriminator, what all z look like, and where. The z seen
    belong to other images than those of the step, or to unknown ones, so nothing here needs a pair. Both learning rates
    fall along a cosine to a hundredth, and the last weights are the attacker's: it has no error to choose by. No
    augmentation: the attacker isn't told the defender's.

    accuracy: of the server's classifier on what this encoder makes of held-out images: those that the decoder holds
    out, too. told_apart: part of held-out z, half of them seen and half its own, that the discriminator gets right; 0.5
    is chance. failure: why the fit is none; empty: it is one.

    Source: docs/theory.md, "The attacks"; Mescheder, Geiger & Nowozin 2018 (arXiv 1801.04406), equation 9, for the
    penalty.
    """

    def __init__(self, cfg: ShadowModel, knowledge: Knowledge) -> None:
        """Raises AttackError unless the attacker has the server, z, classes and defence, and the classes fit."""
        self.cfg, self.knowledge = cfg, knowledge
        self.labels, self.server, self.corrupt, z = _needed(knowledge)
        split = knowledge.generator(f"{cfg.decoder.seed}/split", "cpu")
        self.fit_rows, self.held_rows = hold_out(knowledge.num_images, cfg.decoder.held_out, split)
        met, apart = hold_out(len(z), cfg.decoder.held_out, self._generator("seen split", "cpu"))
        self.seen, self.held_seen = z[met.to(z.device)], z[apart.to(z.device)]
        self.net, self.discriminator = self._make_nets(z)
        self.optimizers = {
            "optimizer": torch.optim.Adam(self.net.parameters(), lr=cfg.encoder_lr, betas=BETAS),
            "against": torch.optim.Adam(self.discriminator.parameters(), lr=cfg.discriminator_lr, betas=BETAS),
        }
        self.generators = {"batches": self._generator("batches", "cpu"), "corruption": self._generator("corruption")}
        seed_dropout(self.net, self.generators["corruption"])
        self.kept = self._weights()
        self.step = 0
        self.accuracy = self.told_apart = 0.0
        self.failure = "" if cfg.encoder_steps else "0 steps: nothing was fitted"

    @property
    def parameters(self) -> int:
        """How many numbers are fitted."""
        return parameter_count(self.net) + parameter_count(self.discriminator)

    def fit(self, store: StateStore) -> None:
        """Train from the start, or from where an earlier attempt was, to the end.

        Raises Interrupted when asked to stop.
        """
        self._restore(store)
        checkpoints = Checkpoints(store, lambda: self._save(store))
        while self.step < self.cfg.encoder_steps and not self.failure:
            self._learn()
            self.step += 1
            if self.failure or self.step % LOOK_EVERY == 0 or self.step == self.cfg.encoder_steps:
                self._look()
                self._save(store)
            checkpoints.after_batch()
        self.net.load_state_dict(self.kept)
        self.net.eval()
        varies = bool((self.seen != self.seen[:1]).any())  # what is always the same holds no image to rebuild
        if not self.failure and varies and self.told_apart > UNLIKE:
            self.failure = (
                f"its z are told from those seen in {self.told_apart:.0%} of cases: more encoder_steps, or lower "
                "encoder_lr and discriminator_lr"
            )

    @torch.no_grad()
    def send(self, images: Images, generator: torch.Generator) -> Smashed:
        """What a client with this encoder would send."""
        return self.corrupt(self.net(images), generator)

    def _generator(self, purpose: str, device: str | None = None) -> torch.Generator:
        return self.knowledge.generator(f"{self.cfg.seed}/shadow encoder/{purpose}", device)

    def _make_nets(self, z: SeenZ) -> tuple[nn.Module, Standardised]:
        _, *shape = self.knowledge.images.shape
        image_shape = (shape[0], shape[1], shape[2])
        server, draws = self.server, self._generator("weights", "cpu")
        net, _ = make_split(server.model.from_scratch, image_shape, server.num_classes, draws, server.defenses)
        device, masked = self.knowledge.device, self.knowledge.masked
        standard = spread_of([self.seen], masked=masked).by_channel()
        channels, height, width = z.shape[1:]
        judge = make_discriminator(
            (2 * channels if masked else channels, height, width), self._generator("discriminator", "cpu")
        )
        return net.to(device), Standardised(judge, standard, masked).to(device)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.net.state_dict().items()}

    def _learn(self) -> None:
        """A step of the discriminator, then one of the encoder; none of the encoder where its loss is not finite."""
        for optimizer, rate in zip(
            self.optimizers.values(), (self.cfg.encoder_lr, self.cfg.discriminator_lr), strict=True
        ):
            optimizer.param_groups[0]["lr"] = rate * cosine(self.step / self.cfg.encoder_steps)
        self.net.train()
        rows = self.fit_rows[self._draw(len(self.fit_rows))]
        z = self.corrupt(self.net(self.knowledge.targets(rows)), self.generators["corruption"])
        seen = self.seen[self._draw(len(self.seen)).to(self.seen.device)]
        descend(self.optimizers["against"], self._judgement(z.detach(), seen))
        loss = cross_entropy(self.server.classifier(z), self.labels[rows])
        loss = loss + self.cfg.alignment * softplus(-self._verdict(z)).mean()
        if loss.isfinite():
            descend(self.optimizers["optimizer"], loss)
        else:
            self.failure = f"its loss is {loss.item()} at step {self.step + 1}: lower encoder_lr or discriminator_lr"

    def _draw(self, count: int) -> Int[Tensor, " rows"]:
        return torch.randint(count, (self.cfg.encoder_batch_size,), generator=self.generators["batches"])

    def _verdict(self, z: Smashed) -> Float[Tensor, " batch"]:
        """Positive where the discriminator takes z for one that was seen."""
        scores: Tensor = self.discriminator.inner(self.discriminator.input(z))
        return scores

    def _judgement(self, own: Smashed, seen: Smashed) -> Float[Tensor, ""]:
        """The discriminator's loss: of telling the two apart, and half the weight times ‖∂D/∂z‖² at those seen."""
        given = self.discriminator.input(seen).requires_grad_()
        verdict = self.discriminator.inner(given)
        (slope,) = torch.autograd.grad(verdict.sum(), given, create_graph=True)
        penalty = slope.flatten(1).square().sum(1).mean() / 2
        told = softplus(-verdict).mean() + softplus(self._verdict(own)).mean()
        loss: Tensor = told + self.cfg.gradient_penalty * penalty
        return loss

    @torch.no_grad()
    def _look(self) -> None:
        """Keep the weights where all is finite, and measure on what is held out, under the same corruption each time.

        A fit that fails keeps the weights of the look before.
        """
        self.net.eval()
        corruption = self._generator("validation")
        right, passed = 0, 0
        for rows in torch.split(self.held_rows, self.cfg.encoder_batch_size) if not self.failure else ():
            z = self.send(self.knowledge.targets(rows), corruption)
            logits, verdicts = self.server.classifier(z), self._verdict(z)
            if not (logits.isfinite().all() and verdicts.isfinite().all()):
                self.failure = f"logits are not finite after step {self.step}: lower encoder_lr or discriminator_lr"
                break
            right += int((logits.argmax(1) == self.labels[rows]).sum())
            passed += int((verdicts > 0).sum())
        if not self.failure:
            known = self._verdict(self.held_seen) > 0
            self.kept, self.accuracy = self._weights(), right / len(self.held_rows)
            self.told_apart = (1 - passed / len(self.held_rows) + known.float().mean().item()) / 2
        said = self.failure or f"held-out accuracy {self.accuracy:.4f}, told apart {self.told_apart:.4f}"
        print(f"{self.cfg.id}, encoder: step {self.step}/{self.cfg.encoder_steps}, {said}", file=sys.stderr, flush=True)

    @property
    def _learning(self) -> Stateful:
        return Stateful({"net": self.net, "discriminator": self.discriminator}, self.optimizers, self.generators)

    def _save(self, store: StateStore) -> None:
        values = {name: getattr(self, name) for name in _PLAIN}
        store.save(*self._learning.pack(values, {"kept": self.kept}))

    def _restore(self, store: StateStore) -> None:
        saved = store.load()
        if saved is None:
            return
        tensors, header = saved
        self._learning.unpack(tensors, header)
        self.kept = {name: tensor.to(self.knowledge.device) for name, tensor in subset(tensors, "kept").items()}
        for name in _PLAIN:
            setattr(self, name, header[name])
        if not self.failure and self.step < self.cfg.encoder_steps:
            print(f"{self.cfg.id}, encoder: going on from {store.place}: step {self.step + 1}", file=sys.stderr)


def _needed(
    knowledge: Knowledge,
) -> tuple[Labels, Server, Callable[[Smashed, torch.Generator], Smashed], SeenZ]:
    """Classes, server, defence and z seen. Raises AttackError where one is absent, or classes are foreign."""
    if knowledge.labels is None:
        raise AttackError("shadow_model: expected the classes of the attacker's images; set labels: true.")
    if knowledge.server is None or knowledge.corrupt is None or knowledge.seen is None:
        raise AttackError(
            "shadow_model: expected the server's classifier, the defence, and z that were seen; found an attacker who "
            "lacks one of them. Give it the trained run, not only its activations."
        )
    classes = int(knowledge.labels.max()) + 1
    if classes > knowledge.server.num_classes:
        raise AttackError(
            f"shadow_model: expected classes below the server's {knowledge.server.num_classes}; found {classes - 1}. "
            "Attack a run with a data set of the same classes."
        )
    return knowledge.labels, knowledge.server, knowledge.corrupt, knowledge.seen
