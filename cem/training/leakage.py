"""The leakage of a trained encoder: densities fitted to its private ẑ, scored on test, and what needs no density."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from cem.config import MixtureFit, Run
from cem.defenses import Channel, Defense, NotApplicable, defense_of
from cem.jobs.process import make_generator, set_up_process
from cem.mixture import Family, Leakage, Samples, Sandwich, Scored, fit_family, i_mmse, save_mixture
from cem.storage.hdf5 import ActivationReader, open_activations, open_dataset
from cem.training.conditional import measure_conditional
from cem.training.expected import measure_expected

HELD_BYTES = 512 << 20  # a private split up to this size, in float32, is held in memory for the fit
CHUNK_BYTES = 64 << 20  # of what is read at once
_BLOCK = 16  # divides the rows of a chunk: torch draws normal numbers in such blocks, so chunks draw what a whole does


def measure_mixture(
    run: Run,
    fit: MixtureFit,
    activations: Path,
    out: Path,
    observations: Sequence[int] = (),
    *,
    data: Path | None = None,
    model: Path | None = None,
) -> None:
    """Fit a mixture to the private ẑ, save it, and measure the leakage on `test` from both sides, nats per image.

    The mixture that is saved is that of `fit`; the leakage is the least of a family that it belongs to. observations:
    how often attackers see one ẑ; what n of them see is a channel of its own, where it has a law. docs/leakage.md
    says what each attribute of the file is. Activations are read in chunks. A private split that is too large to hold
    is read again in each pass of `fit`, and the other members are fitted to as many images of every class as can be
    held.

    data, model: of a trained run, for what is measured of its encoder beside the mixture: see `measure_expected`.
    """
    device = set_up_process(run.training.threads)
    several = sorted({*observations} - {1})
    with open_activations(activations) as file:
        defense = defense_of(run, file, device)
        channel = defense.channel
        private, val, test = (_scored(file, split, defense, device) for split in ("private", "val", "test"))
        leakage = Leakage(val, test, lambda purpose: make_generator(run.seed, f"leakage/{purpose}", device), channel)
        free = leakage.unsaturated(channel)
        family = _fit_family(file, private, fit, run.seed, channel, free)
        here = leakage.at(channel, family)
        louder = here if free.noise_std == channel.noise_std else leakage.at(free, family)
        repeated, reasons = _repeated(leakage, family, several)
        slope, why = _slope(leakage, family, here)
        reasons |= why
        expected: dict[str, float] = {}
        if data is not None and model is not None:
            expected, why = measure_expected(run, file, data, model, several, device)
            reasons |= why
            with open_dataset(data) as images:
                expected["conditional_nats"] = measure_conditional(run, file, images, defense, device)
    mixture, std = family.members[fit.label], channel.gaussian_std
    attrs = _attrs(here) | {f"unsaturated_{name}": value for name, value in _attrs(louder).items()}
    bound = {}
    if isinstance(std, NotApplicable):
        reasons["bound_nats"] = std.reason
    else:
        bound = {"bound_nats": mixture.leakage_bound(std)}
    attrs |= repeated | slope | expected
    attrs |= {"not_applicable": reasons} | bound
    attrs |= {
        "population": f"images like the {len(test.labels)} of test, with their class shares",
        "masked": defense.masks,
    }
    if not defense.only_hides:  # of a mask, the report says what the lower bound is of
        attrs = {name: value for name, value in attrs.items() if "leakage_lower" not in name}
        reasons["leakage_lower_nats"] = "a defence acts on z after the noise, and may leave less than the bound"
    save_mixture(out, mixture, {"activations": activations}, attrs, {"test_leakage_nats": here.upper})


def _repeated(leakage: Leakage, family: Family, several: Sequence[int]) -> tuple[dict[str, Any], dict[str, str]]:
    """What a file says of the channels of several looks, and why it says nothing of some."""
    found: dict[str, Any] = {}
    reasons: dict[str, str] = {}
    for n in several:
        channel = leakage.law.mean_of(n)
        if isinstance(channel, NotApplicable):
            reasons[f"leakage_seen{n}"] = channel.reason
        else:
            found |= {f"{name}_seen{n}": value for name, value in _attrs(leakage.at(channel, family)).items()}
    return found, reasons


def _attrs(sandwich: Sandwich) -> dict[str, Any]:
    """What a file says of a channel. An infinite leakage has no standard error, and no member."""
    contrast = sandwich.contrast
    found: dict[str, Any] = {
        "noise_std": sandwich.channel.noise_std,
        "leakage_nats": float(sandwich.upper.mean()),
        "leakage_lower_nats": min(float(contrast.lower.mean()), contrast.ceiling),  # a rounding error apart
        "leakage_lower_nats_sem": _sem(contrast.lower),
        "leakage_lower_ceiling": contrast.ceiling,
        "leakage_lower_saturated": contrast.saturated,
        "leakage_lower_images": len(contrast.lower),
        "leakage_twin_nats": float(contrast.upper.mean()),
    }
    if sandwich.member:
        found |= {"leakage_member": sandwich.member, "leakage_nats_sem": _sem(sandwich.upper)}
    return found


def _slope(leakage: Leakage, family: Family, here: Sandwich) -> tuple[dict[str, float], dict[str, str]]:
    """The self-test of the upper bound of a channel, on some images of test; or why there is none."""
    std = here.channel.gaussian_std
    if isinstance(std, NotApplicable):
        return {}, {"i_mmse": std.reason}
    if not here.member:
        return {}, {"i_mmse": "without noise the leakage is infinite"}
    shares = leakage.test.shares(len(family.members[here.member].class_prior))
    found = i_mmse(family.members[here.member], leakage.some, shares, std, leakage.draws("slope"))
    if found is None:
        return {}, {"i_mmse": "almost nothing is leaked: there is no slope to test"}
    return dict(zip(("i_mmse", "i_mmse_sem"), found, strict=True)), {}


def _sem(values: Tensor) -> float:
    return float(values.std() / len(values) ** 0.5)


def _fit_family(
    file: ActivationReader, private: Scored, fit: MixtureFit, seed: int, channel: Channel, free: Channel
) -> Family:
    """Densities of the private ẑ, for the channel's noise; without any, which none is scored at, for that of `free`."""
    labels = private.labels
    generator = make_generator(seed, "mixture", labels.device)
    parts = -(-len(labels) * _row_bytes(file) // HELD_BYTES)
    with torch.no_grad():
        if parts <= 1:
            held = torch.cat([smashed for smashed, _ in private.chunks()])
            whole = some = Samples(lambda: [(held, labels)], in_memory=True)
        else:
            whole, kept = Samples(private.chunks), one_in(parts, labels)
            held = torch.cat([smashed[kept[rows]] for rows, (smashed, _) in _rows(private.chunks())])
            some = Samples(lambda: [(held, labels[kept])], in_memory=True)
        std = channel.noise_std
        return fit_family(whole, some, fit, generator, std, std or free.noise_std)


def one_in(parts: int, labels: Int[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """The first, and then each `parts`-th, image of every class."""
    counts = torch.bincount(labels)
    order = torch.argsort(labels, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(labels), device=labels.device) - (counts.cumsum(0) - counts)[labels[order]]
    return rank % parts == 0


def _rows(parts: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
    """Each chunk, and where its rows are in the whole."""
    start = 0
    for part in parts:
        yield slice(start, start + len(part[1])), part
        start += len(part[1])


def _scored(file: ActivationReader, split: str, defense: Defense, device: torch.device) -> Scored:
    labels = torch.from_numpy(file.labels(split)).to(device)
    return Scored(partial(chunks, file, split, defense, device), labels)


def chunks(
    file: ActivationReader, split: str, defense: Defense, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """What of a split is given to the channel, [n, d], and its labels, some at a time."""

    def flat(array: np.ndarray) -> Tensor:
        return defense.prepare(torch.from_numpy(array).to(device).float()).flatten(1)

    labels = torch.from_numpy(file.labels(split)).to(device)
    size = max(1, CHUNK_BYTES // (_row_bytes(file) * _BLOCK)) * _BLOCK
    for start in range(0, len(labels), size):
        yield file.read(split, slice(start, start + size), flat), labels[start : start + size]


def _row_bytes(file: ActivationReader) -> int:
    return 4 * int(np.prod(file.smashed_shape))
