"""An encoder of the attacker's own, trained in front of the server's classifier."""

import math
import sys

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import CosineAnnealingLR

from cem.attacks.base import AttackError, Knowledge, hold_out
from cem.attacks.fit_loop import descend
from cem.config import ShadowModel
from cem.jobs.interruption import Checkpoints
from cem.jobs.state import StateStore
from cem.models import make_split
from cem.storage.tensors import Stateful, subset
from cem.types import Images, Smashed

_PLAIN = ("epoch", "step", "failure", "best_epoch", "best_accuracy")


class ShadowEncoder:
    """Adam on the cross-entropy of the server's classifier, which stays as it is, on what the defence leaves of ẑ.

    The best epoch is the last of those with the highest accuracy on held-out images: the ones that the decoder holds
    out, too, so that what it selects on is new to both. The learning rate falls along a cosine to a hundredth. No
    augmentation: the attacker isn't told the defender's.

    best_epoch: counted from 1; 0: the first weights. failure: why the fit is none; empty: it is one.
    """

    def __init__(self, cfg: ShadowModel, knowledge: Knowledge) -> None:
        """Raises AttackError unless the attacker holds the server, classes and defence, and the classes fit."""
        if knowledge.labels is None:
            raise AttackError("shadow_model: expected the classes of the attacker's images; set labels: true.")
        if knowledge.server is None or knowledge.corrupt is None:
            raise AttackError(
                "shadow_model: expected the server's classifier, and the defence; found an attacker who holds neither "
                "or one. Give it the trained run, not only its activations."
            )
        classes = int(knowledge.labels.max()) + 1
        if classes > knowledge.server.num_classes:
            raise AttackError(
                f"shadow_model: expected classes below the server's {knowledge.server.num_classes}; found "
                f"{classes - 1}. Attack a run with a data set of the same classes."
            )
        self.cfg, self.knowledge = cfg, knowledge
        self.labels, self.server, self.corrupt = knowledge.labels, knowledge.server, knowledge.corrupt
        split = knowledge.generator(f"{cfg.decoder.seed}/split", "cpu")
        self.fit_rows, self.held_rows = hold_out(knowledge.num_images, cfg.decoder.held_out, split)
        _, *shape = knowledge.images.shape
        weights = self._generator("weights", "cpu")
        net, _ = make_split(self.server.model, (shape[0], shape[1], shape[2]), self.server.num_classes, weights)
        self.net = net.to(knowledge.device)
        self.generators = {"shuffle": self._generator("shuffle", "cpu"), "corruption": self._generator("corruption")}
        self.batch_size = min(cfg.encoder_batch_size, len(self.fit_rows))
        self.steps = len(self.fit_rows) // self.batch_size  # an incomplete last batch is left out
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=cfg.encoder_lr)
        total = max(1, cfg.encoder_epochs * self.steps)
        self.schedule = CosineAnnealingLR(self.optimizer, T_max=total, eta_min=cfg.encoder_lr / 100)
        self.best = self._weights()
        self.best_epoch, self.best_accuracy = 0, self._accuracy()
        self.epoch = self.step = 0
        self.order: Int[Tensor, " rows"] = torch.empty(0, dtype=torch.int64)
        self.failure = "" if cfg.encoder_epochs else "0 epochs: nothing was fitted"

    def fit(self, store: StateStore) -> None:
        """Train from the start, or from where an earlier attempt was, to the end; keep the best epoch's weights.

        Raises Interrupted when asked to stop.
        """
        self._restore(store)
        while self.epoch < self.cfg.encoder_epochs and not self.failure:
            if not len(self.order):
                shuffled = torch.randperm(len(self.fit_rows), generator=self.generators["shuffle"])
                self.order = self.fit_rows[shuffled]
            self._train(store)
            self._end_epoch()
            self._save(store)
        self.net.load_state_dict(self.best)
        self.net.eval()
        if not self.failure and self.best_epoch == 0:
            self.failure = "no epoch suits the server better than the first weights: change encoder_lr"

    @torch.no_grad()
    def send(self, images: Images, generator: torch.Generator) -> Smashed:
        """What a client with this encoder would send."""
        return self.corrupt(self.net(images), generator)

    def _generator(self, purpose: str, device: str | None = None) -> torch.Generator:
        return self.knowledge.generator(f"{self.cfg.seed}/shadow encoder/{purpose}", device)

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.net.state_dict().items()}

    def _train(self, store: StateStore) -> None:
        """What is left of a pass; it ends early where the loss is not finite."""
        self.net.train()
        batches = torch.split(self.order[: self.steps * self.batch_size], self.batch_size)
        checkpoints = Checkpoints(store, lambda: self._save(store))
        for rows in batches[self.step :]:
            z = self.corrupt(self.net(self.knowledge.targets(rows)), self.generators["corruption"])
            loss = cross_entropy(self.server.classifier(z), self.labels[rows])
            if not loss.isfinite():
                self.failure = f"cross-entropy is {loss.item()} in epoch {self.epoch + 1}: lower encoder_lr"
                return
            descend(self.optimizer, loss)
            self.schedule.step()
            self.step += 1
            checkpoints.after_batch()

    def _end_epoch(self) -> None:
        """Keep the weights where they are the best so far. A fit that fails keeps those it had."""
        accuracy = math.nan if self.failure else self._accuracy()
        self.epoch, self.step, self.order = self.epoch + 1, 0, self.order[:0]
        if math.isnan(accuracy):
            self.failure = self.failure or f"logits are not finite after epoch {self.epoch}: lower encoder_lr"
        elif accuracy > self.best_accuracy or (self.best_epoch and accuracy == self.best_accuracy):
            self.best, self.best_epoch, self.best_accuracy = self._weights(), self.epoch, accuracy
        said = self.failure or f"held-out accuracy {accuracy:.4f}"
        print(
            f"{self.cfg.id}, encoder: epoch {self.epoch}/{self.cfg.encoder_epochs}, {said}", file=sys.stderr, flush=True
        )

    def _accuracy(self) -> float:
        """Of the server's classifier on the held-out images, under the same corruption every time.

        NaN where a logit is not finite.
        """
        self.net.eval()
        corruption = self._generator("validation")
        right = 0
        for rows in torch.split(self.held_rows, self.cfg.encoder_batch_size):
            with torch.no_grad():
                logits = self.server.classifier(self.send(self.knowledge.targets(rows), corruption))
            if not logits.isfinite().all():
                return math.nan
            right += int((logits.argmax(1) == self.labels[rows]).sum())
        return right / len(self.held_rows)

    @property
    def _learning(self) -> Stateful:
        return Stateful({"net": self.net}, {"optimizer": self.optimizer}, self.generators, self.schedule)

    def _save(self, store: StateStore) -> None:
        values = {name: getattr(self, name) for name in _PLAIN}
        store.save(*self._learning.pack(values, {"best": self.best, "order": self.order}))

    def _restore(self, store: StateStore) -> None:
        saved = store.load()
        if saved is None:
            return
        tensors, header = saved
        self._learning.unpack(tensors, header)
        self.best = {name: tensor.to(self.knowledge.device) for name, tensor in subset(tensors, "best").items()}
        self.order = tensors["order"]
        for name in _PLAIN:
            setattr(self, name, header[name])
        if not self.failure and self.epoch < self.cfg.encoder_epochs:
            place = f"epoch {self.epoch + 1}, batch {self.step}"
            print(f"{self.cfg.id}, encoder: going on from {store.place}: {place}", file=sys.stderr)
