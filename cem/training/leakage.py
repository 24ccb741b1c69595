"""The leakage of a trained encoder: a mixture fitted to its private ẑ, scored on test."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cem.config import MixtureFit, Run
from cem.jobs.process import make_generator, set_up_process
from cem.mixture import fit_mixture_as, fit_mixture_stream, save_mixture
from cem.storage.hdf5 import ActivationReader, open_activations

HELD_BYTES = 512 << 20  # a private split up to this size, in float32, is held in memory for the fit
CHUNK_BYTES = 64 << 20  # of what is read at once
_BLOCK = 16  # divides the rows of a chunk: torch draws normal numbers in such blocks, so chunks draw what a whole does


def measure_mixture(run: Run, fit: MixtureFit, activations: Path, out: Path) -> None:
    """Fit a mixture to the private ẑ and measure the leakage with it on `test`, in nats per image.

    Activations are read in chunks: a private split that is too large to hold is read again in each pass of the fit.
    """
    device = set_up_process(run.training.threads)
    generator = make_generator(run.seed, "mixture", device)
    draws = make_generator(run.seed, "leakage noise", device)
    with open_activations(activations) as file:
        if file.count("private") * _row_bytes(file) <= HELD_BYTES:
            parts, labels = zip(*chunks(file, "private", device), strict=True)
            mixture = fit_mixture_as(fit, torch.cat(parts), torch.cat(labels), generator)
            del parts
        else:
            mixture = fit_mixture_stream(fit, lambda: chunks(file, "private", device), generator)
        scores = [mixture.leakage(z, labels, run.noise_std, draws) for z, labels in chunks(file, "test", device)]
    leakage = torch.cat(scores).double()
    attrs = {
        "noise_std": run.noise_std,
        "leakage_nats": float(leakage.mean()),
        "leakage_nats_sem": float(leakage.std() / len(leakage) ** 0.5) if run.noise_std else 0.0,
        "bound_nats": mixture.leakage_bound(run.noise_std),
    }
    save_mixture(out, mixture, {"activations": activations}, attrs)


def chunks(file: ActivationReader, split: str, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Clean ẑ [n, d] of a split and its labels, some at a time."""

    def flat(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device).float().flatten(1)

    labels = torch.from_numpy(file.labels(split)).to(device)
    size = max(1, CHUNK_BYTES // (_row_bytes(file) * _BLOCK)) * _BLOCK
    for start in range(0, len(labels), size):
        yield file.read(split, slice(start, start + size), flat), labels[start : start + size]


def _row_bytes(file: ActivationReader) -> int:
    return 4 * int(np.prod(file.smashed_shape))
