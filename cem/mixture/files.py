"""Mixtures on disk."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cem.mixture.model import ClassMixture
from cem.storage.hdf5 import Reader, write_file

_NAMES = ("weights", "means", "variances", "class_prior")
_LOW_RANK = ("basis", "spread")


def save_mixture(
    path: str | Path,
    mixture: ClassMixture,
    sources: dict[str, Path],
    attrs: Mapping[str, Any],
    measured: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a mixture, and what was measured with it as attributes and datasets, whole or not at all."""
    with write_file(path, "mixture", sources=sources, attrs={**attrs, "notes": json.dumps(mixture.notes)}) as file:
        for name, tensor in {**mixture.tensors(), **(measured or {})}.items():
            file.create_dataset(name, data=tensor.cpu().numpy())


def load_mixture(path: str | Path) -> ClassMixture:
    """Read a mixture. Raises StoreError when the file is absent, damaged or of another kind."""
    with Reader(path, maker="fit_mixture", kind="mixture") as file:
        low_rank = any(name in file.file for name in _LOW_RANK)
        names = _NAMES + _LOW_RANK if low_rank else _NAMES
        tensors = {name: torch.from_numpy(file.array(name)) for name in names}
        return ClassMixture(**tensors, notes=tuple(json.loads(file.attrs["notes"])))
