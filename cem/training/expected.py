"""What is expected of a trained encoder without an attacker: the linear least error, and Fisher information."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cem.config import Run
from cem.defenses import Defense, NotApplicable, defense_of
from cem.expected import Moments, fisher_leakage, linear_error
from cem.jobs.process import make_generator
from cem.models import make_split
from cem.models.attention import plain_attention
from cem.storage.hdf5 import ActivationReader, DatasetReader, open_dataset
from cem.storage.tensors import check_files, load_checkpoint, subset

MOST_DIMENSIONS = 2048  # of ẑ: on one core 13 seconds; twice as many take more than a minute
MOST_IMAGES = 1024  # of test: that the encoder is differentiated at
PROBES = 4  # directions for each of these images
_ROWS = 2048  # read at once
Reasons = dict[str, str]  # of what is not given: its name → why


def measure_expected(
    run: Run, file: ActivationReader, data: Path, model: Path, observations: Sequence[int], device: torch.device
) -> tuple[dict[str, float], Reasons]:
    """`lmmse`, `lmmse_low`, `dfil`, `dfil_sem` and `dfil_floor` of a run, those that apply; and why the others do not.

    lmmse is fitted to private images, its ridge chosen on val, and scored on test; dfil is of test images. What n
    observations see has noise of σ/√n; its names end in `_seen{n}`.
    Raises StoreError where the activations are of another model or data set.
    """
    file.check_source("data", data)
    file.check_source("model", model)
    defense = defense_of(run, file, device)
    if not run.noise_known:
        return {}, dict.fromkeys(("lmmse", "dfil"), "z is given, and nobody says which noise it has")
    if not defense.only_channel:
        return {}, dict.fromkeys(("lmmse", "dfil"), "a defence acts on z beside the noise")
    times = {"": 1} | {f"_seen{n}": n for n in observations}
    with open_dataset(data) as images, torch.no_grad():
        found, reasons = _linear(file, images, defense, times, device)
        if not run.model.has_network:
            return found, reasons | {"dfil": "there is no network to differentiate"}
        fisher, why = _fisher(run, file, images, model, defense, times, device)
    return found | fisher, reasons | why


def _linear(
    file: ActivationReader, images: DatasetReader, defense: Defense, times: dict[str, int], device: torch.device
) -> tuple[dict[str, float], Reasons]:
    noise_std = defense.channel.white_std
    if isinstance(noise_std, NotApplicable):
        return {}, {"lmmse": noise_std.reason}
    dimensions = math.prod(file.smashed_shape)
    if dimensions > MOST_DIMENSIONS:
        return {}, {"lmmse": f"ẑ has {dimensions} numbers, more than the {MOST_DIMENSIONS} that it is computed for"}
    private, val, test = (
        Moments.of(_pairs(file, images, split, defense, device)) for split in ("private", "val", "test")
    )
    found: dict[str, float] = {}
    reasons: Reasons = {}
    for suffix, n in times.items():
        error = linear_error(private, val, test, noise_std / n**0.5)
        found[f"lmmse{suffix}"] = error.least
        if error.low is None:
            reasons["lmmse_low"] = f"{private.count} private images are too few for ẑ of {dimensions} numbers"
        else:
            found[f"lmmse_low{suffix}"] = error.low
    return found, reasons


def _fisher(
    run: Run,
    file: ActivationReader,
    images: DatasetReader,
    model: Path,
    defense: Defense,
    times: dict[str, int],
    device: torch.device,
) -> tuple[dict[str, float], Reasons]:
    noise_std = defense.channel.gaussian_std
    if isinstance(noise_std, NotApplicable):
        return {}, {"dfil": noise_std.reason}
    stds = {suffix: noise_std / n**0.5 for suffix, n in times.items()}
    if noise_std == 0:
        return {}, {"dfil": "without noise the Fisher information is infinite"}
    tensors, header = load_checkpoint(model, "model")
    check_files(model, header, run.model.files)
    encoder, _ = make_split(run.trained_model, images.image_shape, images.num_classes, defenses=run.defenses)
    encoder.load_state_dict(subset(tensors, "encoder"))
    encoder.to(device).eval().requires_grad_(False)
    count = len(images.labels("test"))
    rows = torch.randperm(count, generator=make_generator(run.seed, "fisher/images", "cpu"))[:MOST_IMAGES].sort().values
    chosen = torch.from_numpy(images.images("test")[rows.numpy()]).to(device).float() / 255
    probes = make_generator(run.seed, "fisher/probes", device)
    try:
        with plain_attention():
            unit = fisher_leakage(
                lambda images: defense.prepare(encoder(images)), chosen, 1.0, probes=PROBES, generator=probes
            )
    except NotImplementedError as error:  # torch's word for a layer without forward derivatives
        return {}, {"dfil": f"torch cannot differentiate the client forward: {str(error).partition(' because')[0]}"}
    found: dict[str, float] = {}
    for suffix, std in stds.items():
        found |= {f"dfil{suffix}": unit.mean / std**2, f"dfil_sem{suffix}": unit.sem / std**2}
    pixels, dimensions = math.prod(images.image_shape), math.prod(file.smashed_shape)
    if dimensions < pixels:
        return found, {"dfil_floor": f"z has {dimensions} numbers, an image {pixels}: no attacker is unbiased"}
    if unit.mean == 0:
        return found, {"dfil_floor": "z does not depend on the image: no attacker is unbiased"}
    return found | {f"dfil_floor{suffix}": std**2 / unit.mean for suffix, std in stds.items()}, {}


def _pairs(
    file: ActivationReader, images: DatasetReader, split: str, defense: Defense, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """What of a split is given to the channel, [rows, d], and its images [rows, pixels] in [0, 1], some at a time."""

    def flat(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(device).float()

    stored = images.dataset(f"{split}/images")
    for start in range(0, len(stored), _ROWS):
        rows = slice(start, start + _ROWS)
        yield defense.prepare(file.read(split, rows, flat)).flatten(1), flat(stored[rows]).flatten(1) / 255
