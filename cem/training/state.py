"""The whole state of a training, saved so that a resumed run ends with the same bits as one never interrupted."""

import fcntl
import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cem import NUMERICS, CemError
from cem.checkpoint import load_checkpoint, save_checkpoint, subset
from cem.config.base import digest
from cem.surrogates import Surrogate

Row = dict[str, Any]


class StateError(CemError):
    """A state folder that another process uses."""


@dataclass
class State:
    """Everything that the rest of a training depends on.

    epoch: the one under way, from 0. step: batches of it that are done. order: the rows of the epoch, shuffled.
    sums: running sums of the epoch's per-batch values. elapsed: seconds spent in the epoch.
    best: the selected model so far, by name of its tensors.
    """

    encoder: nn.Module
    classifier: nn.Module
    surrogate: Surrogate
    optimizer: torch.optim.Optimizer
    surrogate_optimizer: torch.optim.Optimizer | None
    generators: dict[str, torch.Generator]
    epoch: int = 0
    step: int = 0
    order: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    sums: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))
    elapsed: float = 0.0
    history: list[Row] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_accuracy: float = -1.0
    best_epoch: int = -1
    attempts: int = 1

    def model(self) -> dict[str, Tensor]:
        """Copies of the encoder's and classifier's tensors."""
        modules = {"encoder": self.encoder, "classifier": self.classifier}
        return {
            f"{a}.{b}": tensor.clone() for a, module in modules.items() for b, tensor in module.state_dict().items()
        }

    def learned(self) -> tuple[dict[str, Tensor], Row]:
        """What a warm-up hands on: model, optimizer, generators and position; the same bytes for the same seed."""
        tensors = self.model()
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        tensors |= _optimizer_tensors("optimizer", self.optimizer)
        return tensors, {"epoch": self.epoch}

    def restore_learned(self, tensors: dict[str, Tensor], header: Row) -> None:
        """Go on from what `learned` gave."""
        self.encoder.load_state_dict(subset(tensors, "encoder"))
        self.classifier.load_state_dict(subset(tensors, "classifier"))
        for name, generator in self.generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        _restore_optimizer("optimizer", self.optimizer, tensors)
        self.epoch = header["epoch"]

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        tensors, header = self.learned()
        tensors |= {f"surrogate.{name}": tensor for name, tensor in self.surrogate.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        if self.surrogate_optimizer is not None:
            tensors |= _optimizer_tensors("surrogate_optimizer", self.surrogate_optimizer)
        tensors |= {"order": self.order, "sums": self.sums}
        names = ("epoch", "step", "elapsed", "best_accuracy", "best_epoch", "attempts")
        header |= {name: getattr(self, name) for name in names} | {"history": json.dumps(self.history)}
        save_checkpoint(path, "state", tensors, header)

    def restore(self, path: Path) -> None:
        """Go on from a saved state. Raises CheckpointError when the file is damaged."""
        tensors, header = load_checkpoint(path, "state")
        device = next(self.encoder.parameters()).device
        self.restore_learned(tensors, header)
        self.surrogate.load_state_dict(subset(tensors, "surrogate"))
        if self.surrogate_optimizer is not None:
            _restore_optimizer("surrogate_optimizer", self.surrogate_optimizer, tensors)
        self.order, self.sums = tensors["order"].to(device), tensors["sums"].to(device)
        self.best = {name: tensor.to(device) for name, tensor in subset(tensors, "best").items()}
        self.step, self.elapsed = header["step"], header["elapsed"]
        self.best_accuracy, self.best_epoch = header["best_accuracy"], header["best_epoch"]
        self.history, self.attempts = json.loads(header["history"]), header["attempts"] + 1


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
