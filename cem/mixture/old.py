"""Per-class Gaussian mixtures of smashed data: fit, density, leakage."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem import CemError
from cem.store import Reader, write_file

VARIANCE_FLOOR = 1e-6  # in units of z squared; below the noise of any defended run
CHUNK = 4096  # rows whose densities are computed at once: bounds memory at chunk × components × dimensions
_MAX_ROUNDS = 100


class MixtureError(CemError):
    """A mixture that cannot be fitted."""


@dataclass(frozen=True)
class ClassMixture:
    """A Gaussian mixture for each class, with diagonal covariances (equal in all dimensions when spherical).

    weights: sum to 1 within a class. class_prior: share of each class in the population.
    """

    weights: Float[Tensor, "cls component"]
    means: Float[Tensor, "cls component d"]
    variances: Float[Tensor, "cls component d"]
    class_prior: Float[Tensor, " cls"]

    @property
    def label_entropy(self) -> float:
        """H(y) of the population, in nats."""
        return float(torch.special.entr(self.class_prior.double()).sum())

    def log_density(
        self, z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], noise_std: float = 0.0
    ) -> Float[Tensor, " n"]:
        """log q(z | y) in nats, under the mixture convolved with N(0, σ²I)."""
        chunks = zip(torch.split(z, CHUNK), torch.split(labels, CHUNK), strict=True)
        return torch.cat([self._log_density(part, label, noise_std) for part, label in chunks])

    def _log_density(self, z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], noise_std: float) -> Float[Tensor, " n"]:
        variance = self.variances + noise_std**2
        log_norm = -0.5 * (math.log(2 * math.pi) + variance.log()).sum(-1)
        distance = ((z.unsqueeze(1) - self.means[labels]).square() / variance[labels]).sum(-1)
        return torch.logsumexp((self.weights.log() + log_norm)[labels] - 0.5 * distance, dim=1)

    def leakage_bound(self, noise_std: float) -> float:
        """Upper bound on I(x; ẑ + ε) in nats per image, H(y) included; inf at σ = 0.

        Σ_k π_k (−log π_k + ½ Σ_d log(1 + v_kd / σ²)) over all components of all classes. A plug-in value: it speaks of
        the samples the mixture was fitted to. Source: Theorem 2 (arXiv 2503.00383), diagonal covariance.
        """
        if noise_std == 0:
            return math.inf
        share = self.class_prior.unsqueeze(1) * self.weights
        capacity = 0.5 * torch.log1p(self.variances / noise_std**2).sum(-1)
        return float((torch.special.entr(share) + share * capacity).double().sum())

    def leakage(
        self, smashed: Float[Tensor, "n d"], labels: Int[Tensor, " n"], noise_std: float, generator: torch.Generator
    ) -> Float[Tensor, " n"]:
        """Per image −log q(ẑ + ε | y) + H(y) − h(ε), in nats, with ε drawn here; inf at σ = 0.

        The mean over images that the mixture was not fitted to estimates an upper bound on I(x; z), whatever the
        mixture: cross-entropy is never below entropy. Source: REFERENCE §1, fact (i).
        """
        if noise_std == 0:
            return torch.full_like(smashed[:, 0], math.inf)
        noise = torch.randn(smashed.shape, generator=generator, device=smashed.device, dtype=smashed.dtype)
        log_density = self.log_density(smashed + noise_std * noise, labels, noise_std)
        return self.label_entropy - log_density - noise_entropy(smashed.shape[1], noise_std)

    def sample(self, labels: Int[Tensor, " n"], *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """One draw for each label."""
        component = torch.multinomial(self.weights[labels], 1, generator=generator).squeeze(1)
        mean, variance = self.means[labels, component], self.variances[labels, component]
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + variance.sqrt() * noise

    def to(self, device: torch.device) -> "ClassMixture":
        """The same mixture on another device."""
        return ClassMixture(*(t.to(device) for t in (self.weights, self.means, self.variances, self.class_prior)))


def noise_entropy(dimensions: int, noise_std: float) -> float:
    """h(ε) of N(0, σ²I) in nats: d/2 · log(2πeσ²); −inf at σ = 0."""
    return 0.5 * dimensions * math.log(2 * math.pi * math.e * noise_std**2) if noise_std > 0 else -math.inf


def fit_mixture(
    smashed: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    components: int = 3,
    covariance: Literal["spherical", "diag"] = "diag",
    fit: Literal["kmeans", "em"] = "kmeans",
    generator: torch.Generator,
    num_classes: int | None = None,
    start: ClassMixture | None = None,
) -> ClassMixture:
    """Fit a mixture to each class, all classes at once.

    fit: hard k-means (k-means++ or `start`, empty components re-seeded from the farthest points), or EM from there.
    generator: on the device of `smashed`. Raises MixtureError when a class has fewer samples than components, or when
    values are not finite.
    """
    classes = num_classes if num_classes is not None else int(labels.max()) + 1
    counts = torch.bincount(labels, minlength=classes)
    _check(smashed, counts, components)
    points, present = _by_class(smashed, labels, counts)
    # Centred on its class: differences of large squares would lose small variances in float32.
    centre = points.sum(1, keepdim=True) / counts[:, None, None]
    points = (points - centre) * present.unsqueeze(-1)
    means = start.means - centre if start is not None else _plus_plus(points, present, components, generator)
    assigned = _kmeans(points, present, means)
    mixture = _moments(points, assigned, covariance, counts / counts.sum())
    if fit == "em":
        mixture = _em(points, present, mixture, covariance)
    return replace(mixture, means=mixture.means + centre)


def _check(smashed: Float[Tensor, "n d"], counts: Int[Tensor, " cls"], components: int) -> None:
    if not bool(torch.isfinite(smashed).all()):
        raise MixtureError(
            "the smashed data hold values that are not finite, so the encoder diverged. Look at the run's history.csv, "
            "lower the learning rate or the surrogate's weight, or set max_grad_norm, and train again."
        )
    smallest = int(counts.argmin())
    if int(counts[smallest]) < components:
        raise MixtureError(
            f"class {smallest} has {int(counts[smallest])} samples for {components} components, so no mixture can be "
            "fitted. Use fewer components, more private images, or drop the class."
        )


def _by_class(
    smashed: Float[Tensor, "n d"], labels: Int[Tensor, " n"], counts: Int[Tensor, " cls"]
) -> tuple[Float[Tensor, "cls most d"], Float[Tensor, "cls most"]]:
    """Samples of each class in a row, padded to the largest class; 1 where a sample is, 0 where padding is."""
    order = torch.argsort(labels, stable=True)
    ordered = labels[order]
    first = torch.cumsum(counts, 0) - counts
    place = torch.arange(len(labels), device=labels.device) - first[ordered]
    points = smashed.new_zeros(len(counts), int(counts.max()), smashed.shape[1])
    present = smashed.new_zeros(points.shape[:2])
    points[ordered, place] = smashed[order]
    present[ordered, place] = 1.0
    return points, present


def _squared_distances(
    points: Float[Tensor, "cls most d"], means: Float[Tensor, "cls k d"]
) -> Float[Tensor, "cls most k"]:
    cross = torch.baddbmm(means.square().sum(-1).unsqueeze(1), points, means.transpose(1, 2), alpha=-2)
    return (cross + points.square().sum(-1, keepdim=True)).clamp_min(0)


def _plus_plus(
    points: Float[Tensor, "cls most d"], present: Float[Tensor, "cls most"], components: int, generator: torch.Generator
) -> Float[Tensor, "cls k d"]:
    """k-means++ seeding: each next centre is a sample drawn with probability ∝ its squared distance to the nearest.

    Source: Arthur & Vassilvitskii 2007.
    """
    rows = torch.arange(len(points), device=points.device)
    chosen = torch.multinomial(present, 1, generator=generator).squeeze(1)
    centres = [points[rows, chosen]]
    nearest = _squared_distances(points, centres[0].unsqueeze(1)).squeeze(-1)
    for _ in range(components - 1):
        # Where all samples coincide every distance is zero: any sample will do.
        odds = nearest * present + present * torch.finfo(nearest.dtype).tiny
        chosen = torch.multinomial(odds, 1, generator=generator).squeeze(1)
        centres.append(points[rows, chosen])
        nearest = torch.minimum(nearest, _squared_distances(points, centres[-1].unsqueeze(1)).squeeze(-1))
    return torch.stack(centres, dim=1)


def _kmeans(
    points: Float[Tensor, "cls most d"], present: Float[Tensor, "cls most"], means: Float[Tensor, "cls k d"]
) -> Float[Tensor, "cls most k"]:
    """Lloyd's iteration until no sample changes its component: one-hot assignments, zero for padding."""
    previous = None
    for _ in range(_MAX_ROUNDS):
        nearest, component = _squared_distances(points, means).min(-1)
        assigned = torch.nn.functional.one_hot(component, means.shape[1]).to(points.dtype) * present.unsqueeze(-1)
        if previous is not None and torch.equal(component, previous):
            break
        previous = component
        count = assigned.sum(1)
        means = torch.bmm(assigned.transpose(1, 2), points) / count.clamp_min(1).unsqueeze(-1)
        means = _reseed(points, nearest * present, count, means)
    return assigned


def _reseed(
    points: Float[Tensor, "cls most d"],
    distance: Float[Tensor, "cls most"],
    count: Float[Tensor, "cls k"],
    means: Float[Tensor, "cls k d"],
) -> Float[Tensor, "cls k d"]:
    """Move the centre of each empty component to one of its class's farthest samples."""
    empty = count == 0
    if not bool(empty.any()):
        return means
    farthest = distance.topk(means.shape[1], dim=1).indices  # the j-th empty component takes the j-th farthest
    place = (empty.cumsum(1) - 1).clamp_min(0)
    rows = torch.arange(len(points), device=points.device).unsqueeze(1)
    return torch.where(empty.unsqueeze(-1), points[rows, farthest.gather(1, place)], means)


def _moments(
    points: Float[Tensor, "cls most d"],
    responsibility: Float[Tensor, "cls most k"],
    covariance: str,
    class_prior: Float[Tensor, " cls"],
) -> ClassMixture:
    """Weights, means and variances of samples that belong to components to the given degrees."""
    mass = responsibility.sum(1)
    scale = mass.clamp_min(torch.finfo(mass.dtype).tiny).unsqueeze(-1)
    transposed = responsibility.transpose(1, 2)
    means = torch.bmm(transposed, points) / scale
    variances = (torch.bmm(transposed, points.square()) / scale - means.square()).clamp_min(VARIANCE_FLOOR)
    if covariance == "spherical":
        variances = variances.mean(-1, keepdim=True).expand_as(means).contiguous()
    return ClassMixture(mass / mass.sum(1, keepdim=True), means, variances, class_prior.to(means.dtype))


def _em(
    points: Float[Tensor, "cls most d"], present: Float[Tensor, "cls most"], mixture: ClassMixture, covariance: str
) -> ClassMixture:
    """Expectation maximisation in log space until the mean log-likelihood gains less than 1e-4 nats a dimension."""
    previous = -math.inf
    for _ in range(_MAX_ROUNDS):
        precision = mixture.variances.reciprocal()
        log_norm = mixture.weights.log() - 0.5 * (math.log(2 * math.pi) + mixture.variances.log()).sum(-1)
        distance = (
            torch.bmm(points.square(), precision.transpose(1, 2))
            - 2 * torch.bmm(points, (precision * mixture.means).transpose(1, 2))
            + (precision * mixture.means.square()).sum(-1).unsqueeze(1)
        )
        joint = log_norm.unsqueeze(1) - 0.5 * distance
        evidence = torch.logsumexp(joint, -1, keepdim=True)
        responsibility = (joint - evidence).exp() * present.unsqueeze(-1)
        mixture = _moments(points, responsibility, covariance, mixture.class_prior)
        likelihood = float((evidence.squeeze(-1) * present).sum() / present.sum())
        if likelihood - previous < 1e-4 * points.shape[-1]:
            break
        previous = likelihood
    return mixture


def save_mixture(path: str | Path, mixture: ClassMixture, sources: dict[str, Path], attrs: dict[str, float]) -> None:
    """Write a mixture and what was measured with it, whole or not at all."""
    with write_file(path, "mixture", sources=sources, attrs=attrs) as file:
        for name in ("weights", "means", "variances", "class_prior"):
            file.create_dataset(name, data=getattr(mixture, name).cpu().numpy())


def load_mixture(path: str | Path) -> ClassMixture:
    """Read a mixture. Raises StoreError when the file is absent, damaged or of another kind."""
    with Reader(path, maker="fit_mixture", kind="mixture") as file:
        arrays = [torch.from_numpy(np.asarray(file.array(n))) for n in ("weights", "means", "variances", "class_prior")]
    return ClassMixture(*arrays)
