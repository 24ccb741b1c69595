"""A fitted mixture: density, leakage, samples."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.mixture.lowrank import capacity, normal_log_norm, woodbury
from cem.mixture.tiles import tile

CHUNK = 4096  # samples scored at once
_MOST_PRODUCTS = 1 << 22  # of samples and directions, at once: 32 MiB


@dataclass(frozen=True)
class ClassMixture:
    """A Gaussian mixture for each class: Σ_ck = diag(v_ck) + U_c diag(λ_ck) U_cᵀ, the second part with `basis` only.

    weights: sum to 1 within a class. variances: v, equal in all dimensions when spherical; all of a component's
    variance unless there is a basis. class_prior: share of each class in the population. basis: U, orthonormal
    columns. spread: λ, the variance added along each of them. notes: what is to be known of the fit, such as a class
    with fewer components than others (their weights are 0).
    """

    weights: Float[Tensor, "cls component"]
    means: Float[Tensor, "cls component d"]
    variances: Float[Tensor, "cls component d"]
    class_prior: Float[Tensor, " cls"]
    basis: Float[Tensor, "cls d rank"] | None = None
    spread: Float[Tensor, "cls component rank"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def covariance_diagonal(self) -> Float[Tensor, "cls component d"]:
        """Variance of each dimension, the basis's part included: v + (U∘U) λ."""
        if self.basis is None or self.spread is None:
            return self.variances
        return self.variances + self.spread @ self.basis.square().transpose(1, 2)

    def log_density(
        self, z: Float[Tensor, "n d"], labels: Int[Tensor, " n"], noise_std: float = 0.0
    ) -> Float[Tensor, " n"]:
        """log q(z | y) = log Σ_k π_yk N(z; μ_yk, Σ_yk + σ²I), in nats per image."""
        variances = self.variances + noise_std**2
        log_norm = self.weights.log() + normal_log_norm(variances)
        projector = None
        if self.basis is not None and self.spread is not None:
            projector, half_log_det = woodbury(variances, self.basis, self.spread)
            log_norm = log_norm - half_log_det
        parts = [z.new_zeros(0)]
        for part, label in zip(torch.split(z, CHUNK), torch.split(labels, CHUNK), strict=True):
            found = z.new_empty(len(part) + 1)
            for group in tile(part, label, len(self.weights), total=len(part)):
                distance = self._distance(group.points, group.cls, variances.reciprocal(), projector)
                found[group.rows] = torch.logsumexp(log_norm[group.cls].unsqueeze(1) - 0.5 * distance, -1)
            parts.append(found[:-1])
        return torch.cat(parts)

    def log_densities(self, z: Float[Tensor, "n d"], noise_std: float = 0.0) -> Float[Tensor, "n cls"]:
        """log q(z | y) of every class y, in nats per image, in float64: `log_density` for who does not know the class.

        Squares are expanded into products, which float64 has the digits for.
        """
        mixture = self._with({name: tensor.double() for name, tensor in self.tensors().items()})
        classes, components, _ = mixture.means.shape
        origin = mixture.means.flatten(0, 1).mean(0)
        means, variances = mixture.means - origin, mixture.variances + noise_std**2
        pull = means / variances
        constant = mixture.weights.log() + normal_log_norm(variances) - 0.5 * (pull * means).sum(-1)
        projector = shift = None
        if mixture.basis is not None and mixture.spread is not None:
            projector, half_log_det = woodbury(variances, mixture.basis, mixture.spread)
            constant, shift = constant - half_log_det, projector @ means.unsqueeze(-1)
        parts = [constant.new_zeros(0, classes)]
        width = classes * components * (1 if projector is None else projector.shape[2])
        for part in torch.split(z, max(1, min(CHUNK, _MOST_PRODUCTS // width))):
            points = part.double() - origin
            joint = constant.flatten() + points @ pull.flatten(0, 1).T
            joint = joint - 0.5 * points.square() @ variances.reciprocal().flatten(0, 1).T
            if projector is not None and shift is not None:
                along = (points @ projector.flatten(0, 2).T - shift.flatten()).square()
                joint = joint + 0.5 * along.view(len(part), -1, projector.shape[2]).sum(-1)
            parts.append(joint.view(len(part), classes, components).logsumexp(-1))
        return torch.cat(parts)

    def _distance(
        self,
        points: Float[Tensor, "tile row d"],
        cls: Int[Tensor, " tile"],
        precision: Float[Tensor, "cls component d"],
        projector: Float[Tensor, "cls component rank d"] | None,
    ) -> Float[Tensor, "tile row component"]:
        """Squared Mahalanobis distances, from differences: exact where a component is narrow and far from its class."""
        columns = []
        for k in range(precision.shape[1]):
            offset = points - self.means[cls, k].unsqueeze(1)
            squared = torch.bmm(offset.square(), precision[cls, k].unsqueeze(-1)).squeeze(-1)
            if projector is not None:
                squared = squared - torch.bmm(offset, projector[cls, k].transpose(1, 2)).square().sum(-1)
            columns.append(squared)
        return torch.stack(columns, -1)

    def log_det_ratio(self, noise_std: float) -> Float[Tensor, "cls component"]:
        """½ log(|Σ + σ²I| / |σ²I|) of each component, in nats per image; σ > 0."""
        basis = None if self.basis is None else self.basis.unsqueeze(1)
        return capacity(self.variances, noise_std**2, basis, self.spread)

    def leakage_bound(self, noise_std: float) -> float:
        """`bound_nats` as a number."""
        return float(self.bound_nats(noise_std))

    def bound_nats(self, noise_std: float) -> Float[Tensor, ""]:
        """Upper bound on I(x; ẑ + ε) in nats per image, H(y) included; inf at σ = 0.

        Σ_k π_k (−log π_k + ½ log(|Σ_k + σ²I| / |σ²I|)) over all components of all classes. A plug-in value: it speaks
        of the samples the mixture was fitted to. Source: Theorem 2 (arXiv 2503.00383).
        """
        share = self.class_prior.unsqueeze(1) * self.weights
        if noise_std == 0:
            return share.new_full((), math.inf)
        nats: Tensor = torch.special.entr(share) + share * self.log_det_ratio(noise_std)
        return nats.double().sum()

    def leakage(
        self,
        smashed: Float[Tensor, "n d"],
        labels: Int[Tensor, " n"],
        noise_std: float,
        generator: torch.Generator,
        class_prior: Float[Tensor, " cls"] | None = None,
    ) -> Float[Tensor, " n"]:
        """Per image −log π_y − log q(ẑ + ε | y) − h(ε), in nats, with ε drawn here; inf at σ = 0.

        class_prior: π, any shares not fitted to the scored images; absent: those of the samples that the mixture was
        fitted to. The mean over images that the mixture was not fitted to estimates an upper bound on I(x; z) of the
        population that these images are from, whatever π and the mixture: π_y q(z|y) is below a density of z, and
        cross-entropy is never below entropy. Source: docs/theory.md, "A bound from any density".
        """
        if noise_std == 0:
            return torch.full_like(smashed[:, 0], math.inf)
        noise = torch.randn(smashed.shape, generator=generator, device=smashed.device, dtype=smashed.dtype)
        log_density = self.log_density(smashed + noise_std * noise, labels, noise_std)
        prior = self.class_prior if class_prior is None else class_prior
        return -prior.log()[labels] - log_density - noise_entropy(smashed.shape[1], noise_std)

    def sample(self, labels: Int[Tensor, " n"], *, generator: torch.Generator) -> Float[Tensor, "n d"]:
        """A ẑ for each label, without noise."""
        component = torch.multinomial(self.weights[labels], 1, generator=generator).squeeze(1)
        mean, variance = self.means[labels, component], self.variances[labels, component]
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        drawn = mean + variance.sqrt() * noise
        if self.basis is None or self.spread is None:
            return drawn
        along = self.spread[labels, component].sqrt()
        along = along * torch.randn(along.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        found = drawn.new_empty(len(labels) + 1, drawn.shape[1])
        for group in tile(along, labels, len(self.weights), total=len(labels)):
            found[group.rows] = torch.bmm(group.points, self.basis[group.cls].transpose(1, 2))
        return drawn + found[:-1]

    def _with(self, tensors: dict[str, Any]) -> "ClassMixture":
        return replace(self, **tensors)

    def tensors(self) -> dict[str, Tensor]:
        """Its tensors by name, those it has."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def label_entropy(class_prior: Float[Tensor, " cls"]) -> float:
    """H(y) = −Σ π log π of the population, in nats."""
    return float(torch.special.entr(class_prior.double()).sum())


def noise_entropy(dimensions: int, noise_std: float) -> float:
    """h(ε) of N(0, σ²I) in nats: d/2 · log(2πeσ²); −inf at σ = 0."""
    return 0.5 * dimensions * math.log(2 * math.pi * math.e * noise_std**2) if noise_std > 0 else -math.inf
