"""The whole state of a training, saved so that a resumed run ends with the same bits as one never interrupted."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cem.jobs.state import StateStore
from cem.storage.tensors import Packed, Stateful, subset
from cem.training.history import Epoch, Means
from cem.training.protocol import Client, Server

Row = dict[str, Any]
_PLAIN = ("epoch", "step", "nonfinite", "elapsed", "best_accuracy", "best_epoch")


@dataclass
class State:
    """Everything that the rest of a training depends on.

    epoch: the one under way, from 0. step: batches of it that are done. order: the rows of the epoch, shuffled.
    means: of the epoch's readings. nonfinite: batches of the epoch that went without the surrogate. elapsed: seconds
    spent in the epoch. best: the selected model so far, by name of its tensors.
    """

    client: Client
    server: Server
    generators: dict[str, torch.Generator]
    epoch: int = 0
    step: int = 0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    means: Means = field(default_factory=Means)
    nonfinite: int = 0
    elapsed: float = 0.0
    history: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = -1.0
    best_epoch: int = -1

    @property
    def _learning(self) -> Stateful:
        """What a warm-up hands on."""
        own = self.client.defense.training_state
        return Stateful(
            {**self._model, **own.modules},
            {"client_optimizer": self.client.optimizer, "server_optimizer": self.server.optimizer, **own.optimizers},
            self.generators,
        )

    @property
    def _model(self) -> dict[str, nn.Module]:
        client = self.client
        return {"encoder": client.encoder, "defense": client.defense.learned, "classifier": self.server.classifier}

    @property
    def _surrogate(self) -> Stateful:
        own = self.client.surrogate_optimizer
        return Stateful({"surrogate": self.client.surrogate}, {} if own is None else {"surrogate_optimizer": own})

    def model(self) -> dict[str, Tensor]:
        """Copies of the tensors of the encoder, of what the defence has learned, and of the classifier."""
        tensors, _ = Stateful(self._model).pack({}, {})
        return {name: tensor.clone() for name, tensor in tensors.items()}

    def learned(self) -> Packed:
        """What a warm-up hands on: model, optimizers, generators and position; the same bytes for the same seed."""
        return self._learning.pack({"epoch": self.epoch}, {})

    def restore_learned(self, tensors: dict[str, Tensor], header: Row) -> None:
        """Go on from what `learned` gave."""
        self._learning.unpack(tensors, header)
        self.epoch = header["epoch"]

    def save(self, store: StateStore) -> None:
        """Keep the state, whole or not at all."""
        values = {name: getattr(self, name) for name in _PLAIN}
        # As texts: a leakage may be infinite, which the header refuses.
        values |= {"history": json.dumps([row._asdict() for row in self.history])}
        values |= {"means": json.dumps(asdict(self.means))}
        tensors, header = self._learning.pack(values, {"best": self.best, "order": self.order})
        store.save(tensors | self._surrogate.pack({}, {})[0], header)

    def restore(self, tensors: dict[str, Tensor], header: Row) -> None:
        """Go on from what `save` kept."""
        device = next(self.client.encoder.parameters()).device
        self.restore_learned(tensors, header)
        self._surrogate.unpack(tensors, header)
        self.order = tensors["order"].to(device)
        self.best = {name: tensor.to(device) for name, tensor in subset(tensors, "best").items()}
        for name in _PLAIN:
            setattr(self, name, header[name])
        self.history = [Epoch(**row) for row in json.loads(header["history"])]
        self.means = Means(**json.loads(header["means"]))
