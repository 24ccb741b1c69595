"""What lowers the held-out error of `conditional`: the whole map, slots, earlier batches, ±ε, the ridge, the targets?

For clean ẑ of trained encoders, which do not move (activations.h5, its data file, and the σ that it is judged at): a
variant's network is fitted by its own Adam to batches of private images. In the last two fifths of the steps, each step
also scores a batch of test images: regression on one half, error of the other, then the halves swap. Every number is a
mean over seeds, with their standard deviation; the same batches and noise for all variants. Prints Markdown.
Usage: python benchmarks/conditional_ablation.py DATA.h5 FILE:SIGMA… [--seeds 3] [--steps 250] [--tables …]
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import torch
from mixture_ablation import arguments, table
from torch import Tensor, nn
from torch.nn.functional import gelu

from cem.config import AttentionSurrogate
from cem.jobs.process import make_generator, set_up_process
from cem.models.init import initialise
from cem.surrogates import make_surrogate
from cem.surrogates.attention_base import draw_parameters
from cem.surrogates.attention_conditional import ConditionalEntropy, Features, Moments
from cem.surrogates.cross_attention import GatedCrossAttention
from cem.surrogates.slot_attention import SlotAttention

BATCH, DECAY, LATE = 128, 0.9, 0.6
TABLES = ("error", "ridge", "draws", "memory", "targets")
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
Samples = tuple[Tensor, Tensor]  # clean ẑ and its images


@dataclass(frozen=True)
class Source:
    """Images of an encoder and their ẑ: those that a network is fitted to, and those that it has not seen."""

    name: str
    sigma: float
    known: Samples
    fresh: Samples


def read_source(text: str, data: Path) -> Source:
    path, sigma = text.rsplit(":", 1)
    with h5py.File(path) as file, h5py.File(data) as images:
        known, fresh = (
            (torch.from_numpy(file[split]["smashed"][:]).float(), torch.from_numpy(images[split]["images"][:]) / 255)
            for split in ("private", "test")
        )
    return Source(f"{'/'.join(Path(path).parts[-4:-2])}, σ {sigma}", float(sigma), known, fresh)


# Variants that the product does not have, since they did not help.


class Near(Features):
    """5 × 5 positions alone."""

    def far_of(self, near: Tensor) -> Tensor:
        return self.far(near)

    def forward(self, z: Tensor) -> Tensor:
        variance, mean = torch.var_mean(z, (0, 2, 3), correction=0, keepdim=True)
        z = (z - mean) * (variance + 1e-30).rsqrt()
        return torch.cat([gelu(self.far_of(gelu(self.near(z)))), self.linear(z)], 1).permute(0, 2, 3, 1)


class Dilated(Near):
    """The second convolution skips every other position: it sees 7 × 7."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(channels, features)
        self.far = nn.Conv2d(self.far.in_channels, features, 3, padding=2, dilation=2)


class Slotted(Near):
    """Eight slots summarise the map, and every position reads them through gated cross-attention."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__(channels, features)
        width = self.far.in_channels
        self.slots, self.read = SlotAttention(width, 8, 3), GatedCrossAttention(width, 4)

    def draw(self, generator: torch.Generator) -> None:
        """First weights; of slots and their readers as the attention surrogate's."""
        for part in (self.near, self.far, self.whole, self.linear):
            initialise(part, generator)
        for part in (self.slots, self.read):
            draw_parameters(part, generator)

    def far_of(self, near: Tensor) -> Tensor:
        tokens = near.flatten(2).mT
        return self.far(self.read(tokens, self.slots(tokens)).mT.reshape(near.shape))


class Learned(Features):
    """Without z's own channels."""

    def forward(self, z: Tensor) -> Tensor:
        return super().forward(z)[..., : self.far.out_channels]


class Remembering(ConditionalEntropy):
    """Earlier batches support the regression too, as their features were then; each weighs DECAY of the next."""

    earlier: Moments | None = None
    weight = 0.0  # of all earlier batches, in batches

    def regression(self, moments: Moments, rows: int) -> Tensor:
        own = moments
        if self.earlier is not None:
            part = self.weight / (self.weight + 0.5)  # a half is half a batch
            moments = Moments(*((1 - part) * one + part * other for one, other in zip(own, self.earlier, strict=True)))
        weights = super().regression(moments, round(rows * (1 + 2 * self.weight)))
        if self.training:
            both = [each.detach().mean(0, keepdim=True) for each in own]
            kept, total = DECAY * self.weight, DECAY * self.weight + 1
            before = both if self.earlier is None else self.earlier
            self.earlier = Moments(*((kept * old + new) / total for old, new in zip(before, both, strict=True)))
            self.weight = total
        return weights


@dataclass(frozen=True)
class Variant:
    name: str
    features: type[Features] = Features
    statistic: type[ConditionalEntropy] = ConditionalEntropy
    batch: int = BATCH


VARIANTS = (
    Variant("5 × 5 positions and the mean of the map: the default"),
    Variant("5 × 5 positions alone", Near),
    Variant("slots read by cross-attention in place of the mean", Slotted),
    Variant("7 × 7 positions, the second convolution dilated", Dilated),
    Variant("without z's own channels", Learned),
    Variant("support from earlier batches", statistic=Remembering),
    Variant("batch 32", batch=32),
    Variant("batch 32, support from earlier batches", statistic=Remembering, batch=32),
)


def make(source: Source, variant: Variant, seed: int, **settings: object) -> ConditionalEntropy:
    """Untrained, with the first weights of this seed."""
    cfg = AttentionSurrogate(statistic="conditional", **settings)  # type: ignore[arg-type]
    shape = tuple(source.known[0].shape[1:])
    module = make_surrogate(cfg, smashed_shape=shape, num_classes=1, noise_std=source.sigma, seed=seed)
    assert isinstance(module, ConditionalEntropy)
    module.__class__ = variant.statistic
    if variant.features is not Features:
        module.network = variant.features(shape[0], cfg.features)
        initialise(module.network, make_generator(seed, "variant", "cpu"))
    return module


def batches(samples: Samples, size: int, draws: torch.Generator) -> Samples:
    rows = torch.randint(len(samples[0]), (size,), generator=draws)
    return samples[0][rows], samples[1][rows]


def error_of(module: ConditionalEntropy, batch: Samples, draws: torch.Generator) -> float:
    """Squared error of a pixel, of the halves that are not fitted; nothing is learned from it."""
    module.eval()
    with torch.no_grad():
        return float(module._errors(*batch, draws, signs=1)[0].mean())


def fit(
    source: Source, module: ConditionalEntropy, batch: int, steps: int, seed: int, only: Samples | None = None
) -> float:
    """Take `steps` of the module's own Adam. The mean error on test images, of its last steps."""
    optimizer = torch.optim.Adam(module.parameters(), lr=module.cfg.lr)
    draws, fresh, errors = make_generator(seed, "fit", "cpu"), make_generator(seed, "fresh", "cpu"), []
    for step in range(steps):
        module.train()
        smashed, images = batches(source.known, batch, draws) if only is None else only
        optimizer.zero_grad()
        loss = module.fit_loss(smashed, torch.zeros(len(smashed), dtype=torch.long), draws, images)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step >= LATE * steps:
            errors.append(error_of(module, batches(source.fresh, batch, fresh), fresh))
    return statistics.mean(errors)


def errors_table(source: Source, seed: int, steps: int) -> dict[str, float]:
    return {each.name: fit(source, make(source, each, seed), each.batch, steps, seed) for each in VARIANTS}


def ridges_table(source: Source, seed: int, steps: int) -> dict[str, float]:
    """Of one fitted network; and of the same z as a vector, which has few rows for its many numbers."""
    module = make(source, VARIANTS[0], seed)
    fit(source, module, BATCH, steps, seed)
    found, given = {}, module.cfg
    flat = [samples[0].flatten(1)[:, :, None, None] for samples in (source.known, source.fresh)]
    as_vector = Source(source.name, source.sigma, (flat[0], source.known[1]), (flat[1], source.fresh[1]))
    vector = make(as_vector, VARIANTS[0], seed)
    fit(as_vector, vector, BATCH, steps, seed)
    for name, of, network in (("map", source, module), ("vector", as_vector, vector)):
        for ridge in RIDGES:
            network.cfg = given.model_copy(update={"ridge": ridge})
            fresh = make_generator(seed, "fresh", "cpu")
            scores = [error_of(network, batches(of.fresh, BATCH, fresh), fresh) for _ in range(30)]
            found[f"{name}, `ridge` {ridge:g}{' (the default)' if ridge == given.ridge else ''}"] = statistics.mean(
                scores
            )
    return found


def draws_table(source: Source, seed: int, steps: int) -> dict[str, float]:
    """Cosine between the gradients in ẑ that two draws of the noise give the same batch."""
    module = make(source, VARIANTS[0], seed)
    fit(source, module, BATCH, steps, seed)
    smashed, images = batches(source.known, BATCH, make_generator(seed, "batch", "cpu"))
    found = {}
    for name, antithetic in (("one draw", False), ("±ε", True)):
        module.cfg = module.cfg.model_copy(update={"antithetic": antithetic})
        gradients = []
        for draw in (1, 2):
            clean = smashed.clone().requires_grad_()
            draws = make_generator(100 * seed + draw, "noise", "cpu")
            module(clean, torch.zeros(BATCH, dtype=torch.long), draws, images).loss.backward()
            assert clean.grad is not None
            gradients.append(clean.grad.flatten())
        found[name] = float(torch.cosine_similarity(*gradients, dim=0))
    return found


def memory_table(source: Source, seed: int, steps: int) -> dict[str, float]:
    """Of 100 images whose ẑ never moves, which the network sees in every step: the error told of them and of others."""
    few = batches(source.known, 100, make_generator(seed, "few", "cpu"))
    others = [batches(source.fresh, 100, make_generator(seed, f"others {i}", "cpu")) for i in range(5)]
    found = {}
    for name, times in (("at first", 0), ("fitted to them", 1), ("fitted to them four times as long", 4)):
        module, draws = make(source, VARIANTS[0], seed), make_generator(seed, "told", "cpu")
        if times:
            fit(source, module, 100, times * steps, seed, few)
        found[f"{name}: of them"] = error_of(module, few, draws)
        found[f"{name}: of others"] = statistics.mean(error_of(module, each, draws) for each in others)
    return found


def targets_table(source: Source, seed: int, steps: int) -> dict[str, float]:
    """`conditional_nats` of test images by what the network was fitted to."""
    found = {}
    for residual in ("pixels", "coefficients"):
        module = make(source, VARIANTS[0], seed, residual=residual)
        fit(source, module, BATCH, steps, seed)
        fresh, told = make_generator(seed, "fresh", "cpu"), []
        for _ in range(30):
            smashed, images = batches(source.fresh, BATCH, fresh)
            with torch.no_grad():
                nats = module(smashed, torch.zeros(BATCH, dtype=torch.long), fresh, images).conditional_nats
            told.append(float(nats))
        found[f"`residual: {residual}`"] = statistics.mean(told)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="the prepared images, results/data/….h5")
    args = arguments(parser, TABLES, 250)
    set_up_process(1)
    sources, steps = [read_source(text, args.data) for text in args.sources], args.steps
    tables: dict[str, tuple[str, Callable[[Source, int, int], dict[str, float]], int, bool]] = {
        "error": ("Held-out squared error", errors_table, 4, True),
        "ridge": ("Ridge: held-out squared error", ridges_table, 4, False),
        "draws": ("Agreement of two draws' gradients, cosine", draws_table, 3, False),
        "memory": ("Memory of 100 images, squared error", memory_table, 4, False),
        "targets": ("What the network is fitted to: `conditional_nats`", targets_table, 1, False),
    }
    for name in args.tables:
        title, what, digits, over = tables[name]
        table(title, lambda source, seed, what=what: what(source, seed, steps), sources, args.seeds, digits, over)
    return 0


if __name__ == "__main__":
    sys.exit(main())
