"""What tightens an upper bound on the leakage: slots, draws, support, coupling, or parameters of a class?

For clean ẑ of trained encoders (activations.h5, and the σ that it is to be judged at): densities are estimated from
private images and score test images. Every number is a mean over seeds, with their standard deviation. Prints Markdown.
Usage: python benchmarks/mixture_ablation.py FILE:SIGMA [FILE:SIGMA …] [--seeds 3] [--steps 100] [--tables …]
"""

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import h5py
import torch
from torch import Tensor

from cem.config import AttentionSurrogate, GaussianSurrogate
from cem.jobs.process import make_generator, set_up_process
from cem.mixture import noise_entropy
from cem.surrogates import Surrogate, make_surrogate
from cem.surrogates.attention_mixture import MixtureAttention
from cem.surrogates.gaussian import Gaussian, class_means_and_deviations

BATCH, SUPPORT, SCORED = 128, 1024, 1024
TABLES = ("coupling", "support", "draws", "memory", "slots")
SUPPORTS = (64, 128, 256, 512, 1024, 2048)
Samples = tuple[Tensor, Tensor]


class HasName(Protocol):
    """What a column of a table is of."""

    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=HasName)


@dataclass(frozen=True)
class Source:
    """Two sets of images' ẑ with labels: what densities are estimated from, and what they score."""

    name: str
    sigma: float
    classes: int
    known: Samples
    fresh: Samples
    truth: float | None = None

    def draw(self, of: Samples, n: int, draws: torch.Generator) -> Samples:
        rows = torch.randperm(len(of[1]), generator=draws)[:n]
        return of[0][rows], of[1][rows]

    def make(self, cfg: AttentionSurrogate | GaussianSurrogate, seed: int = 0) -> Surrogate:
        shape = tuple(self.known[0].shape[1:])
        return make_surrogate(cfg, smashed_shape=shape, num_classes=self.classes, noise_std=self.sigma, seed=seed)


def read_source(text: str) -> Source:
    path, sigma = text.rsplit(":", 1)
    with h5py.File(path) as file:
        known, fresh = (
            (torch.from_numpy(file[split]["smashed"][:]).float(), torch.from_numpy(file[split]["labels"][:]).long())
            for split in ("private", "test")
        )
    name = "/".join(Path(path).parts[-5:-2])
    return Source(f"{name}, σ {sigma}", float(sigma), int(known[1].max()) + 1, known, fresh)


def known_mixture() -> Source:
    """Each of 4 positions has a mixture of 4 Gaussians of 8 numbers in each of 10 classes, all independent."""
    classes, components, channels, positions, spread, sigma = 10, 4, 8, 4, 0.3, 0.1
    draws = make_generator(0, "means", "cpu")
    means = torch.randn(classes, components, positions, channels, generator=draws)

    def draw(n: int) -> Samples:
        labels = torch.arange(n) % classes
        which = torch.randint(components, (n, positions), generator=draws)
        tokens = means[labels[:, None], which, torch.arange(positions)]
        tokens = tokens + spread * torch.randn(tokens.shape, generator=draws)
        return tokens.transpose(1, 2).reshape(n, channels, 2, 2), labels

    smashed, labels = draw(20_000)
    tokens = (smashed + sigma * torch.randn(smashed.shape, generator=draws)).flatten(2).transpose(1, 2)
    variance = spread**2 + sigma**2
    squared = (tokens.unsqueeze(1) - means[labels]).square().sum(-1) / variance
    norm = 0.5 * channels * math.log(2 * math.pi * variance) + math.log(components)
    nll = (norm - torch.logsumexp(-0.5 * squared, 1)).sum(1).double().mean()
    truth = float(nll) - noise_entropy(32, sigma) + math.log(classes)
    return Source(f"known mixture, truth {truth:.1f}", sigma, classes, draw(8000), draw(4000), truth)


# Coupling and support: densities in closed form.


def gaussian_nats(source: Source, covariance: Tensor, deviation: Tensor) -> float:
    """The bound under a covariance of clean ẑ, with the expectation over ε exact."""
    dimensions = len(covariance)
    factor = torch.linalg.cholesky(covariance.double() + source.sigma**2 * torch.eye(dimensions).double())
    precision = torch.cholesky_inverse(factor)
    squared = (deviation.double() @ precision * deviation.double()).sum(1).mean() + source.sigma**2 * precision.trace()
    nll = 0.5 * (squared + 2 * factor.diagonal().log().sum() + dimensions * math.log(2 * math.pi))
    return float(nll) - noise_entropy(dimensions, source.sigma) + math.log(source.classes)


def low_rank(covariance: Tensor, rank: int = 32) -> Tensor:
    """Principal components, and what is left of each number's variance."""
    values, vectors = torch.linalg.eigh(covariance.double())
    kept = vectors[:, -rank:] * values[-rank:] @ vectors[:, -rank:].T
    return kept + torch.diag((covariance.diagonal() - kept.diagonal()).clamp_min(0))


def within_tokens(covariance: Tensor, positions: int) -> Tensor:
    place = torch.arange(len(covariance)) % positions
    return covariance * (place.unsqueeze(1) == place)


def couplings(source: Source, seed: int) -> dict[str, float]:
    draws = make_generator(seed, "coupling", "cpu")
    support, labels = source.draw(source.known, SUPPORT, draws)
    scored, its_labels = source.draw(source.fresh, SCORED, draws)
    surrogate = source.make(GaussianSurrogate())
    assert isinstance(surrogate, Gaussian)
    means, left = class_means_and_deviations(support.flatten(1), labels, source.classes)
    deviation = scored.flatten(1) - means[its_labels]
    own = left.T @ left / len(left)
    scale = own.diagonal().clamp_min(1e-6).sqrt()
    stationary = surrogate._stationary(own / scale / scale.unsqueeze(1)) * scale * scale.unsqueeze(1)
    factor = surrogate._density(support.flatten(1), labels).factor
    return {
        "numbers independent": gaussian_nats(source, own.diagonal().diag(), deviation),
        "positions independent, channels coupled": gaussian_nats(
            source, within_tokens(own, surrogate.positions), deviation
        ),
        "32 principal components and the rest": gaussian_nats(source, low_rank(own), deviation),
        "all coupled, by displacement alone": gaussian_nats(source, stationary, deviation),
        "all coupled, shrunk to independence": gaussian_nats(
            source, 0.8 * own + 0.2 * own.diagonal().diag(), deviation
        ),
        "**all coupled, shrunk to displacement (`gaussian`)**": gaussian_nats(
            source, factor @ factor.T - source.sigma**2 * torch.eye(len(own)), deviation
        ),
        "the same, innovations with a mixture of 8 each": innovations(source, factor, left, deviation, draws),
    }


def innovations(source: Source, factor: Tensor, left: Tensor, deviation: Tensor, draws: torch.Generator) -> float:
    """Each innovation of noisy ẑ has a mixture of eight Gaussians of its own, by ten rounds of EM on the support."""

    def whitened(clean: Tensor) -> Tensor:
        noisy = clean + source.sigma * torch.randn(clean.shape, generator=draws)
        return torch.linalg.solve_triangular(factor, noisy.double().T, upper=False).T.unsqueeze(-1)

    x, k = whitened(left), 8
    variance = x.var(0).expand(-1, k)
    mean = 0.7 * variance.sqrt() * torch.randn(variance.shape, generator=draws).double()
    weight = torch.full_like(mean, 1 / k)

    def joint(values: Tensor) -> Tensor:
        return weight.log() - 0.5 * ((values - mean).square() / variance + (2 * math.pi * variance).log())

    for _ in range(10):
        share = torch.softmax(joint(x), -1)
        count = share.sum(0)
        mean = (share * x).sum(0) / (count + 1)
        variance = ((share * (x - mean).square()).sum(0) + 4) / (count + 4)
        weight = (count + 1) / (len(x) + k)
    nll = factor.diagonal().log().sum() - torch.logsumexp(joint(whitened(deviation)), -1).sum(1).mean()
    return float(nll) - noise_entropy(len(factor), source.sigma) + math.log(source.classes)


def supports(source: Source, seed: int) -> dict[str, float]:
    draws = make_generator(seed, "support", "cpu")
    smashed, labels = source.draw(source.known, max(SUPPORTS), draws)
    scored, its_labels = source.draw(source.fresh, SCORED, draws)
    surrogate, found = source.make(GaussianSurrogate()), {}
    assert isinstance(surrogate, Gaussian)
    for n in SUPPORTS:
        density = surrogate._density(smashed[:n].flatten(1), labels[:n])
        deviation = scored.flatten(1).double() - density.means[its_labels]
        nll = float(surrogate._nll(density, deviation))
        found[str(n)] = nll - noise_entropy(surrogate.dimensions, source.sigma) + math.log(source.classes)
    return found


# The attention module: slots, draws of ε, memory.


@dataclass(frozen=True)
class Variant:
    """A module, and how it is kept from reading its slots."""

    name: str
    cfg: AttentionSurrogate
    closed: bool = False


SLOTS = (
    Variant("8 slots, 8 components", AttentionSurrogate()),
    Variant("slots never read", AttentionSurrogate(), closed=True),
    Variant("one slot", AttentionSurrogate(slots=1)),
    Variant("slots never read, one component", AttentionSurrogate(components=1), closed=True),
)


def fitted(source: Source, variant: Variant, steps: int, seed: int, only: Samples | None = None) -> MixtureAttention:
    """After `steps` of its own Adam on batches of private images, or on all of `only`."""
    module = source.make(variant.cfg, seed)
    assert isinstance(module, MixtureAttention)
    if variant.closed:
        torch.nn.init.zeros_(module.read.attention_gate)
        module.read.attention_gate.requires_grad_(False)
    own = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(own, lr=variant.cfg.lr)
    draws = make_generator(seed, "fit", "cpu")
    for _ in range(steps):
        optimizer.zero_grad()
        batch = source.draw(source.known, BATCH, draws) if only is None else only
        module.fit_loss(*batch, draws).backward()
        optimizer.step()
    return module


def told(module: Surrogate, batches: Iterable[Samples], seed: int) -> float:
    """Mean leakage that it tells of some batches."""
    draws = make_generator(seed, "told", "cpu")
    with torch.no_grad():
        return statistics.mean(float(module(*batch, draws).leakage_nats) for batch in batches)


def batches_of(samples: Samples, n: int = SCORED) -> list[Samples]:
    return [(samples[0][i : i + BATCH], samples[1][i : i + BATCH]) for i in range(0, min(n, len(samples[1])), BATCH)]


def slots(source: Source, seed: int, steps: int) -> dict[str, float]:
    found = {}
    for variant in SLOTS:
        module = fitted(source, variant, steps if source.truth is None else 4 * steps, seed)
        found[variant.name] = told(
            module, batches_of(source.draw(source.fresh, SCORED, make_generator(seed, "fresh", "cpu"))), seed
        )
    found["`gaussian`, after 1,024 images"] = supports(source, seed)["1024"]
    return found


def agreement(source: Source, seed: int, steps: int) -> dict[str, float]:
    """Cosine between the gradients that two draws give the same batch."""
    module = fitted(source, SLOTS[0], steps, seed)
    pairs = source.make(AttentionSurrogate(antithetic=True))
    pairs.load_state_dict(module.state_dict())
    gaussian = source.make(GaussianSurrogate())
    for batch in batches_of(source.draw(source.known, SUPPORT, make_generator(seed, "support", "cpu"))):
        gaussian(*batch)
    remembered = deepcopy(gaussian.state_dict())
    smashed, labels = source.draw(source.known, BATCH, make_generator(seed, "batch", "cpu"))

    def cosine(surrogate: Surrogate) -> float:
        found = []
        for draw in (1, 2):
            if surrogate is gaussian:
                surrogate.load_state_dict(remembered)
            clean = smashed.clone().requires_grad_()
            surrogate(clean, labels, make_generator(100 * seed + draw, "noise", "cpu")).loss.backward()
            assert clean.grad is not None
            found.append(clean.grad.flatten())
        return float(torch.cosine_similarity(*found, dim=0))

    names = ("mixture, one draw", "mixture, ±ε", "`gaussian`, no draw")
    return {name: cosine(each) for name, each in zip(names, (module, pairs, gaussian), strict=True)}


def memory(source: Source, seed: int, steps: int) -> dict[str, float]:
    """Of 50 classes of two images, whose ẑ never moves: what is told of them, as time goes on, and of others."""
    draws = make_generator(seed, "few", "cpu")
    labels = torch.arange(100) % 50
    few = (source.draw(source.known, 100, draws)[0], labels)
    others = [(source.draw(source.fresh, 100, draws)[0], labels) for _ in range(5)]
    source = Source(source.name, source.sigma, 50, few, few)
    found = {}
    module = source.make(AttentionSurrogate(), seed)
    found["mixture, at first"] = told(module, [few], seed)
    module = fitted(source, SLOTS[0], 4 * steps, seed, few)
    found["mixture, fitted to them"] = told(module, [few], seed)
    found["the same, of other images"] = told(module, others, seed)
    gaussian, epochs = source.make(GaussianSurrogate()), []
    for epoch in range(20):
        gaussian.begin_epoch(epoch / 19)
        order = torch.randperm(100, generator=draws).split(50)
        epochs.append(told(gaussian, [(few[0][rows], labels[rows]) for rows in order], seed))
    found["`gaussian`, first epoch"], found["`gaussian`, epochs 11 to 20"] = epochs[0], statistics.mean(epochs[10:])
    return found


def table(
    title: str,
    what: Callable[[Named, int], dict[str, float]],
    sources: list[Named],
    seeds: int,
    digits: int,
    over: bool = False,
) -> None:
    """One row for each variant, one column for each source. over: with what it is above the first row, in percent."""
    columns = []
    for source in sources:
        begun = time.perf_counter()
        found = [what(source, seed) for seed in range(seeds)]
        print(f"{title}, {source.name}: {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)
        first, cells = next(iter(found[0])), {}
        for name in found[0]:
            cells[name] = _spread([run[name] for run in found], f".{digits}f")
            if over and name != first:
                cells[name] += f" ({_spread([100 * (run[name] / run[first] - 1) for run in found], '+.1f')} %)"
        columns.append(cells)
    print(f"## {title}\n\n| | {' | '.join(source.name for source in sources)} |\n|{'---|' * (len(sources) + 1)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(column[name] for column in columns)} |")
    print(flush=True)


def _spread(values: list[float], form: str) -> str:
    return f"{statistics.mean(values):{form}} ± {statistics.stdev(values):{form.lstrip('+')}}"


def arguments(parser: argparse.ArgumentParser, tables: Sequence[str], steps: int) -> argparse.Namespace:
    """What both ablations are told. steps: of a fit, unless it is said."""
    parser.add_argument("sources", nargs="+", metavar="FILE:SIGMA")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--tables", nargs="+", choices=tables, default=tables)
    args = parser.parse_args()
    if args.seeds < 2:
        parser.error(f"--seeds: needs 2 or more for a standard deviation, found {args.seeds}")
    return args


def main() -> int:
    args = arguments(argparse.ArgumentParser(description=__doc__.splitlines()[0]), TABLES, 100)
    set_up_process(1)
    real, known = [read_source(text) for text in args.sources], known_mixture()
    steps = args.steps
    tables: dict[str, tuple[str, Callable[[Source, int], dict[str, float]], list[Source], int]] = {
        "coupling": ("Coupling, nats", couplings, real, 1),
        "support": ("Support: images that the density comes from, nats", supports, real, 1),
        "draws": ("Agreement of two draws' gradients, cosine", lambda s, i: agreement(s, i, steps), real, 3),
        "memory": ("Memory of 50 classes of 2 images, nats", lambda s, i: memory(s, i, steps), real[:1], 1),
        "slots": ("Slots, nats", lambda s, i: slots(s, i, steps), [known, *real], 1),
    }
    for name in args.tables:
        title, what, sources, digits = tables[name]
        table(title, what, sources, args.seeds, digits)
    return 0


if __name__ == "__main__":
    sys.exit(main())
