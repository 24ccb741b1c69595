"""Weights of networks that were trained elsewhere: safetensors and state dicts, tensors and nothing else."""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from cem.config import Checkpoint
from cem.config.imports import expanded
from cem.models.split import ModelError

SHOWN = 5  # names that a message lists
COUNTER = "num_batches_tracked"  # of batch normalisation, which old files do not have, and evaluation does not use


def load_weights(network: nn.Module, files: Iterable[Checkpoint]) -> None:
    """Put weights into a network, which together the files have all of, each of them once.

    Raises ModelError where a file cannot be read or holds anything but tensors, or where names or shapes are not those
    of the network.
    """
    expected = network.state_dict()
    found: dict[str, Tensor] = {}
    of: dict[str, str] = {}  # name → the file that has it
    for file in files:
        for name, tensor in _mapped(read_tensors(file), file).items():
            if name in found:
                raise ModelError(
                    f"{file.path}: has {name}, which {of[name]} has, too. Map names apart with `keys`, or leave one out"
                )
            found[name], of[name] = tensor, file.path
    where = ", ".join(dict.fromkeys(of.values()))
    missing = [name for name in expected if name not in found and not name.endswith(COUNTER)]
    unexpected = [name for name in found if name not in expected]
    if missing or unexpected:
        raise ModelError(f"{where}: {_names_differ(missing, unexpected)}")
    for name, tensor in found.items():
        if (kind := _kind(tensor)) != _kind(expected[name]):
            raise ModelError(
                f"{of[name]}: {name} holds {kind} ({tensor.dtype}); that of the network {_kind(expected[name])} "
                f"({expected[name].dtype}). Save it as such, in the program that made it"
            )
        if tensor.shape != expected[name].shape:
            raise ModelError(
                f"{of[name]}: {name} has the shape {_times(tensor)}; that of the network is {_times(expected[name])}. "
                "Take the weights of this network, or build the one that these are of (with their number of classes)"
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{of[name]}: {name} holds numbers that are not finite. Take another file")
    network.load_state_dict(expected | found)


def _kind(tensor: Tensor) -> str:
    """What its numbers are, where a copy into one of another kind would fail, or mean something else."""
    if tensor.is_meta:
        return "no numbers, as on the device meta"
    if tensor.is_quantized:
        return "quantised numbers"
    if tensor.layout != torch.strided:
        return "a sparse tensor"
    if tensor.is_complex():
        return "complex numbers"
    return "floating-point numbers" if tensor.is_floating_point() else "integers"


def read_tensors(file: Checkpoint) -> dict[str, Tensor]:
    """Name → tensor, of one file. Raises ModelError where it cannot be read, or holds anything else."""
    path = expanded(file.path)
    if not os.path.isfile(path):  # noqa: PTH113 (pathlib raises for a folder that may not be entered)
        raise ModelError(
            f"{file.path}: expected a file of weights, found none. Correct the path, which is relative to the working "
            "folder"
        )
    if path.stat().st_size == 0:
        raise ModelError(f"{file.path}: expected a file of weights, found an empty file. Save it again")
    if path.suffix == ".safetensors":
        if file.entry is not None:
            raise ModelError(
                f"{file.path}: entry: {file.entry!r}: a safetensors file holds tensors alone, without entries. Leave "
                "entry out"
            )
        try:
            with safe_open(path, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file.path}: cannot read it as safetensors: {error}. Save it again") from None
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its readers raise whatever the damage leads them to: IndexError, TypeError, …
        raise ModelError(
            f"{file.path}: expected a state dict, tensors alone, which torch.load(weights_only=True) reads; it says: "
            f"{_found_by_torch(error)}. Other objects are never unpickled here: where you trust the file, load it in "
            "the program that made it, and save network.state_dict()"
        ) from None
    return _only_tensors(found, file)


def _found_by_torch(error: Exception) -> str:
    """What torch met in the file, without its advice to load that unsafely."""
    text = str(error)
    met = (text.partition("WeightsUnpickler error:")[2] or text).strip()
    return met.split("\n")[0].split(". ")[0] or type(error).__name__


def _only_tensors(found: Any, file: Checkpoint) -> dict[str, Tensor]:
    if file.entry is not None:
        if not isinstance(found, Mapping) or file.entry not in found:
            has = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
            raise ModelError(f"{file.path}: expected the entry {file.entry!r}; found {has[:200]}")
        found = found[file.entry]
    if not isinstance(found, Mapping):
        raise ModelError(
            f"{file.path}: expected a state dict, names with tensors; found {type(found).__name__}. Save "
            "network.state_dict()"
        )
    others = [str(name) for name, value in found.items() if not isinstance(value, Tensor)]
    if others:
        inside = [str(name) for name, value in found.items() if isinstance(value, Mapping)]
        advice = f"Set entry: {inside[0]}" if inside else "Save network.state_dict() alone"
        raise ModelError(f"{file.path}: expected tensors and nothing else; found others: {_listed(others)}. {advice}")
    return {str(name): value for name, value in found.items()}


def _mapped(tensors: Mapping[str, Tensor], file: Checkpoint) -> dict[str, Tensor]:
    """Under the network's names. Raises ModelError where two come out equal, or a prefix fits no name."""
    found: dict[str, Tensor] = {}
    unused = set(file.keys)
    for name, tensor in tensors.items():
        prefix = max((one for one in file.keys if name.startswith(one)), key=len, default=None)
        here: str | None = name
        if prefix is not None:
            unused.discard(prefix)
            to = file.keys[prefix]
            here = None if to is None else to + name[len(prefix) :]
        if here is not None and here in found:
            raise ModelError(f"{file.path}: two of its names become {here}. Correct `keys`")
        if here is not None:
            found[here] = tensor
    if unused:
        raise ModelError(
            f"{file.path}: keys: no name of the file begins with {_listed(sorted(unused))}; it has "
            f"{_listed(list(tensors))}"
        )
    return found


def _names_differ(missing: list[str], unexpected: list[str]) -> str:
    told = []
    if missing:
        told.append(f"lacks {_listed(missing)} of the network")
    if unexpected:
        near = get_close_matches(unexpected[0], missing, 1)
        told.append(f"has {_listed(unexpected)}, which the network has not" + (f" (it has {near[0]})" if near else ""))
    return "; ".join(told) + ". Map prefixes with `keys`, such as {module.: ''}; null leaves names out"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more


def _times(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
