"""The whole state of a training, saved so that a resumed run ends with the same bits as one never interrupted."""

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cem import NUMERICS, CemError
from cem.checkpoint import load_checkpoint, save_checkpoint, subset
from cem.config.base import digest
from cem.training.history import Epoch, Means
from cem.training.protocol import Client, Server

Row = dict[str, Any]
_PLAIN = ("epoch", "step", "nonfinite", "elapsed", "best_accuracy", "best_epoch")


class StateError(CemError):
    """A state folder that another process uses."""


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
    attempts: int = 1

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
        tensors |= _optimizer_tensors("client_optimizer", self.client.optimizer)
        tensors |= _optimizer_tensors("server_optimizer", self.server.optimizer)
        return tensors, {"epoch": self.epoch}

    def restore_learned(self, tensors: dict[str, Tensor], header: Row) -> None:
        """Go on from what `learned` gave."""
        self.client.encoder.load_state_dict(subset(tensors, "encoder"))
        self.server.classifier.load_state_dict(subset(tensors, "classifier"))
        for name, generator in self.generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        _restore_optimizer("client_optimizer", self.client.optimizer, tensors)
        _restore_optimizer("server_optimizer", self.server.optimizer, tensors)
        self.epoch = header["epoch"]

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        client, (tensors, header) = self.client, self.learned()
        tensors |= {f"surrogate.{name}": tensor for name, tensor in client.surrogate.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        if client.surrogate_optimizer is not None:
            tensors |= _optimizer_tensors("surrogate_optimizer", client.surrogate_optimizer)
        tensors |= {"order": self.order}
        header |= {name: getattr(self, name) for name in _PLAIN} | {"attempts": self.attempts}
        # As texts: a leakage may be infinite, which the header refuses.
        header |= {"history": json.dumps([row._asdict() for row in self.history])}
        header |= {"means": json.dumps(asdict(self.means))}
        save_checkpoint(path, "state", tensors, header)

    def restore(self, path: Path) -> None:
        """Go on from a saved state. Raises CheckpointError when the file is damaged."""
        tensors, header = load_checkpoint(path, "state")
        client, device = self.client, next(self.client.encoder.parameters()).device
        self.restore_learned(tensors, header)
        client.surrogate.load_state_dict(subset(tensors, "surrogate"))
        if client.surrogate_optimizer is not None:
            _restore_optimizer("surrogate_optimizer", client.surrogate_optimizer, tensors)
        self.order = tensors["order"].to(device)
        self.best = {name: tensor.to(device) for name, tensor in subset(tensors, "best").items()}
        for name in _PLAIN:
            setattr(self, name, header[name])
        self.attempts = header["attempts"] + 1
        self.history = [Epoch(**row) for row in json.loads(header["history"])]
        self.means = Means(**json.loads(header["means"]))


def _optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter tensors; its settings come from the study."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def _restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    saved = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in subset(tensors, prefix).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": deepcopy(saved["param_groups"])})


def state_folder(root: Path, settings: Row, inputs: dict[str, str]) -> Path:
    """Folder of a training's state: named by its settings, the digests of its inputs and the program's numerics."""
    return root / ".state" / digest({"settings": settings, "inputs": inputs, "numerics": NUMERICS}, 16)


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Hold a state folder for one process, for the length of a block.

    Raises StateError when another process holds it. The lock goes with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"{folder}: another process is training with exactly these settings and inputs. Wait for it, or stop "
                "it; then run again."
            ) from None
        except OSError as error:
            print(f"{folder}: this file system has no locks ({error}); going on without one", file=sys.stderr)
        yield folder


def forget(folder: Path) -> None:
    """Remove a state that is no longer needed, since what it led to is whole."""
    shutil.rmtree(folder)


def saved_state(folder: Path) -> Path:
    """The state's file."""
    return folder / "state.safetensors"
