"""The whole state of a training, saved so that a resumed run ends with the same bits as one never interrupted."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from cem.jobs.interruption import Progress
from cem.storage.tensors import optimizer_tensors, restore_optimizer, subset
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

    def model(self) -> dict[str, Tensor]:
        """Copies of the encoder's and classifier's tensors."""
        modules = {"encoder": self.client.encoder, "classifier": self.server.classifier}
        return {
            f"{a}.{b}": tensor.clone() for a, module in modules.items() for b, tensor in module.state_dict().items()
        }

    def learned(self) -> tuple[dict[str, Tensor], Row]:
        """What a warm-up hands on: model, optimizers, generators and position; the same bytes for the same seed."""
        tensors = self.model()
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        tensors |= optimizer_tensors("client_optimizer", self.client.optimizer)
        tensors |= optimizer_tensors("server_optimizer", self.server.optimizer)
        return tensors, {"epoch": self.epoch}

    def restore_learned(self, tensors: dict[str, Tensor], header: Row) -> None:
        """Go on from what `learned` gave."""
        self.client.encoder.load_state_dict(subset(tensors, "encoder"))
        self.server.classifier.load_state_dict(subset(tensors, "classifier"))
        for name, generator in self.generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        restore_optimizer("client_optimizer", self.client.optimizer, tensors)
        restore_optimizer("server_optimizer", self.server.optimizer, tensors)
        self.epoch = header["epoch"]

    def save(self, progress: Progress) -> None:
        """Keep the state, whole or not at all."""
        client, (tensors, header) = self.client, self.learned()
        tensors |= {f"surrogate.{name}": tensor for name, tensor in client.surrogate.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        if client.surrogate_optimizer is not None:
            tensors |= optimizer_tensors("surrogate_optimizer", client.surrogate_optimizer)
        tensors |= {"order": self.order}
        header |= {name: getattr(self, name) for name in _PLAIN}
        # As texts: a leakage may be infinite, which the header refuses.
        header |= {"history": json.dumps([row._asdict() for row in self.history])}
        header |= {"means": json.dumps(asdict(self.means))}
        progress.save(tensors, header)

    def restore(self, tensors: dict[str, Tensor], header: Row) -> None:
        """Go on from what `save` kept."""
        client, device = self.client, next(self.client.encoder.parameters()).device
        self.restore_learned(tensors, header)
        client.surrogate.load_state_dict(subset(tensors, "surrogate"))
        if client.surrogate_optimizer is not None:
            restore_optimizer("surrogate_optimizer", client.surrogate_optimizer, tensors)
        self.order = tensors["order"].to(device)
        self.best = {name: tensor.to(device) for name, tensor in subset(tensors, "best").items()}
        for name in _PLAIN:
            setattr(self, name, header[name])
        self.history = [Epoch(**row) for row in json.loads(header["history"])]
        self.means = Means(**json.loads(header["means"]))
