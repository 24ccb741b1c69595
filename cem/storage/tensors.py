"""Tensors with a JSON header in one safetensors file: written whole, read without pickle; and what is packed so."""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from cem import CemError
from cem.storage.files import digests_of, whole_or_absent

VERSION = 1
Packed = tuple[dict[str, Tensor], dict[str, Any]]  # tensors by name, and a header of JSON values


class CheckpointError(CemError):
    """A checkpoint that is absent, damaged or foreign."""


def save_checkpoint(path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header of JSON values, whole or not at all."""
    text = json.dumps({"kind": kind, "version": VERSION, **header}, sort_keys=True, allow_nan=False)
    cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_or_absent(path) as temporary:
        temporary.write_bytes(save(cpu, metadata={"cem": text}))  # save_file's errors would not be OSErrors


def load_checkpoint(path: str | Path, kind: str) -> Packed:
    """Tensors (on the CPU) and header.

    Raises CheckpointError when the file is absent, damaged, or of another kind or version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("cem", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, ValueError) as error:  # ValueError: its header is no JSON
        raise CheckpointError(
            f"{path}: expected a checkpoint of kind {kind!r}, cannot read it: {error}. Delete it and run again."
        ) from None
    header = header if isinstance(header, dict) else {}
    if (header.get("kind"), header.get("version")) != (kind, VERSION):
        raise CheckpointError(
            f"{path}: expected a checkpoint of kind {kind!r} version {VERSION}, found kind {header.get('kind')!r} "
            f"version {header.get('version')!r}. Delete it and run again."
        )
    return tensors, header


def check_files(path: str | Path, header: Mapping[str, Any], files: Iterable[str]) -> None:
    """Raise CheckpointError where a file that a model's network came from is not what it was then.

    header: of the model at `path`. files: their paths, as the settings name them now.
    """
    then, now = header.get("files", {}), digests_of(files)
    changed = [name for name in now if then.get(name) != now[name]]
    if changed:
        raise CheckpointError(
            f"{path}: expected {changed[0]} as it was when this was made (SHA-256 {then.get(changed[0], 'unknown')}), "
            f"found another ({now[changed[0]]}). Delete {path} and run again, or put the former file back."
        )


def subset(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named `prefix.…`, without the prefix."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


@dataclass(frozen=True)
class Stateful:
    """What a computation changes as it goes, by name: packed for a checkpoint, and put back in place.

    Where two names are of different kinds they have to differ. schedule: of the rate of an optimizer's first group.
    """

    modules: Mapping[str, nn.Module] = field(default_factory=dict)
    optimizers: Mapping[str, torch.optim.Optimizer] = field(default_factory=dict)
    generators: Mapping[str, torch.Generator] = field(default_factory=dict)
    schedule: LRScheduler | None = None

    def pack(self, values: Mapping[str, Any], tensors: Mapping[str, Tensor | Mapping[str, Tensor]]) -> Packed:
        """All of it with plain values and tensors, or named groups of tensors, that go with it.

        The tensors are those in use, not copies; of optimizers, the settings come from the study.
        """
        packed: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            packed |= {name: tensor} if isinstance(tensor, Tensor) else _under(name, tensor)
        for name, module in self.modules.items():
            packed |= _under(name, module.state_dict())
        for name, optimizer in self.optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                found = {key: value for key, value in state.items() if isinstance(value, Tensor)}
                packed |= _under(f"{name}.{index}", found)
        packed |= _under("generator", {name: one.get_state() for name, one in self.generators.items()})
        header = dict(values)
        if self.schedule is not None:
            rate = self.schedule.optimizer.param_groups[0]["lr"]
            header |= {"lr": rate, "schedule": self.schedule.state_dict()}
        return packed, header

    def unpack(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Put back what `pack` took; on the device where each part is.

        Raises CheckpointError when a generator's state is of another kind of device than the generator.
        """
        for name, module in self.modules.items():
            module.load_state_dict(subset(tensors, name))
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, subset(tensors, name))
        for name, generator in self.generators.items():
            _restore_generator(name, generator, tensors[f"generator.{name}"])
        if self.schedule is not None:
            self.schedule.optimizer.param_groups[0]["lr"] = header["lr"]
            self.schedule.load_state_dict(header["schedule"])


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def _restore_generator(name: str, generator: torch.Generator, state: Tensor) -> None:
    expected = generator.get_state().shape
    if state.shape != expected:
        raise CheckpointError(
            f"expected a state of {expected.numel()} bytes of the generator {name!r} on {generator.device}, found "
            f"{state.numel()}: it was saved on another kind of device, and cannot go on with the same draws here. Run "
            "it on that kind of device, or delete what was saved (the warm-up's model; the job's folder in "
            "results/.state) and run again."
        )
    generator.set_state(state)


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """tensors: of each parameter, under its number."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    groups = deepcopy(optimizer.state_dict()["param_groups"])
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for parameter, own in optimizer.state.items():  # a file has no layout; another than the parameter's may round apart
        for key, tensor in own.items():
            if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                own[key] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
