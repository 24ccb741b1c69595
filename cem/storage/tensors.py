"""Tensors with a JSON header in one safetensors file: written whole, read without pickle."""

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cem import CemError
from cem.storage.files import whole_or_absent

VERSION = 1


class CheckpointError(CemError):
    """A checkpoint that is absent, damaged or foreign."""


def save_checkpoint(path: str | Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a header of JSON values, whole or not at all."""
    text = json.dumps({"kind": kind, "version": VERSION, **header}, sort_keys=True, allow_nan=False)
    cpu = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with whole_or_absent(path) as temporary:
        temporary.write_bytes(save(cpu, metadata={"cem": text}))  # save_file's errors would not be OSErrors


def load_checkpoint(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and header.

    Raises CheckpointError when the file is absent, damaged, or of another kind or version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("cem", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: expected a checkpoint of kind {kind!r}, cannot read it: {error}. Delete it and run again."
        ) from None
    if (header.get("kind"), header.get("version")) != (kind, VERSION):
        raise CheckpointError(
            f"{path}: expected a checkpoint of kind {kind!r} version {VERSION}, found kind {header.get('kind')!r} "
            f"version {header.get('version')!r}. Delete it and run again."
        )
    return tensors, header


def subset(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors named `prefix.…`, without the prefix."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimizer's per-parameter tensors; its settings come from the study."""
    state = optimizer.state_dict()["state"]
    return {
        f"{prefix}.{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(prefix: str, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimizer the tensors that `optimizer_tensors` took from one."""
    saved = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in subset(tensors, prefix).items():
        index, _, key = name.partition(".")
        state.setdefault(int(index), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": deepcopy(saved["param_groups"])})
