"""Expectation maximisation in log space, and the moments that every fit is made of."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cem.mixture.lowrank import normal_log_norm, woodbury
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Samples
from cem.mixture.tiles import Tiles

TOLERANCE = 1e-3  # nats per image: EM ends when a round gains less
_MAX_ROUNDS = 100

# From a group and the squares of its samples: how much of each sample belongs to each component.
# Samples come last: with the short side on the left, products of samples in cache take two thirds of the time.
Share = Callable[[Tiles, Float[Tensor, "tile row d"]], Float[Tensor, "tile k row"]]


@dataclass(frozen=True)
class Moments:
    """Sums over samples that belong to components to given degrees, of centred samples, in float64.

    mass: Σ r. first: Σ r x. second: Σ r x². projected: Σ r (Uᵀx)² along the directions of a basis. floor: least
    variance of a dimension, from the scale of the samples.
    """

    mass: Float[Tensor, "cls k"]
    first: Float[Tensor, "cls k d"]
    second: Float[Tensor, "cls k d"]
    projected: Float[Tensor, "cls k rank"]
    floor: float

    @property
    def weights(self) -> Float[Tensor, "cls k"]:
        """Share of each component in its class."""
        return self.mass / self.mass.sum(1, keepdim=True)

    @property
    def means(self) -> Float[Tensor, "cls k d"]:
        """Of each dimension, from the centre of the class."""
        return self.first / self._scale

    @property
    def variances(self) -> Float[Tensor, "cls k d"]:
        """Of each dimension, at least the floor; in units of z squared, as are all variances."""
        return (self.second / self._scale - self.means.square()).clamp_min(self.floor)

    def along(self, basis: Float[Tensor, "cls d rank"]) -> Float[Tensor, "cls k rank"]:
        """Variance along the directions of the basis the samples were projected on."""
        return (self.projected / self._scale - (self.means @ basis.double()).square()).clamp_min(0)

    @property
    def _scale(self) -> Float[Tensor, "cls k 1"]:
        return self.mass.clamp_min(torch.finfo(self.mass.dtype).tiny).unsqueeze(-1)


def hard(component: Int[Tensor, " n"], components: int) -> Share:
    """Each sample belongs to one component."""
    padded = torch.cat([component, component.new_zeros(1)])
    each = torch.arange(components, device=component.device).unsqueeze(1)
    return lambda group, _: (padded[group.rows].unsqueeze(1) == each).to(group.points.dtype)


def accumulate(
    samples: Samples,
    components: int,
    share: Share,
    basis: Float[Tensor, "cls d rank"] | None = None,
    classes: Bool[Tensor, " cls"] | None = None,
) -> Moments:
    """One pass over the samples, of some classes; the moments of others are zero."""
    centre = samples.centre
    shape = (len(centre), components)
    mass, first, second, projected = (
        centre.new_zeros(*shape, *last, dtype=torch.float64)
        for last in ((), centre.shape[1:], centre.shape[1:], () if basis is None else basis.shape[2:])
    )
    projected = projected if basis is not None else projected.unsqueeze(-1)
    scratch = centre.new_empty(0)
    for group in samples.groups(classes):
        if scratch.shape != group.points.shape:
            scratch = torch.empty_like(group.points)
        square = torch.mul(group.points, group.points, out=scratch)  # new memory for each group costs as much again
        degree = share(group, square) * group.present.unsqueeze(1)
        mass.index_add_(0, group.cls, degree.sum(-1).double())
        first.index_add_(0, group.cls, torch.bmm(degree, group.points).double())
        second.index_add_(0, group.cls, torch.bmm(degree, square).double())
        if basis is not None:
            along = torch.bmm(group.points, basis[group.cls]).square()
            projected.index_add_(0, group.cls, torch.bmm(degree, along).double())
    return Moments(mass, first, second, projected, samples.variance_floor)


def from_moments(moments: Moments, covariance: str, class_prior: Float[Tensor, " cls"]) -> ClassMixture:
    """The mixture of the given moments; diagonal, or spherical."""
    variances = moments.variances
    if covariance == "spherical":
        variances = variances.mean(-1, keepdim=True).expand_as(variances)
    weights, means, variances = (
        t.to(class_prior.dtype).contiguous() for t in (moments.weights, moments.means, variances)
    )
    return ClassMixture(weights, means, variances, class_prior)


def em(samples: Samples, mixture: ClassMixture, covariance: str, noise_variance: float) -> ClassMixture:
    """Expectation maximisation from a diagonal mixture of centred samples, until each class's log-likelihood stands.

    The likelihood is that of x + ε, ε ~ N(0, σ²I), in the mean over ε: see `_log_joint`. What a round gains is known
    without another pass, up to a factor of two: at least what it adds to the expected log-likelihood, and near the end
    at most twice that. Source: Dempster, Laird & Rubin 1977.
    """
    going = torch.ones_like(mixture.class_prior, dtype=torch.bool)
    for _ in range(_MAX_ROUNDS):
        _, moments = expect(samples, mixture, noise_variance, going)
        new = replaced(mixture, from_moments(moments, covariance, mixture.class_prior), going)
        gain = _expected(moments, new, noise_variance) - _expected(moments, mixture, noise_variance)
        mixture = new
        going = going & (2 * gain >= TOLERANCE * samples.counts)
        if not bool(going.any()):
            break
    return mixture


def _expected(moments: Moments, mixture: ClassMixture, noise_variance: float) -> Float[Tensor, " cls"]:
    """Log-likelihood of each class in nats, were it known how much of each sample belongs to each component."""
    weights, means = mixture.weights.double(), mixture.means.double()
    variances = mixture.variances.double() + noise_variance
    log_norm = weights.clamp_min(torch.finfo(weights.dtype).tiny).log() + normal_log_norm(variances)
    square = moments.second - 2 * means * moments.first
    square = square + moments.mass.unsqueeze(-1) * (means.square() + noise_variance)
    return (moments.mass * log_norm - 0.5 * (square / variances).sum(-1)).sum(1)


def replaced(old: ClassMixture, new: ClassMixture, classes: Bool[Tensor, " cls"]) -> ClassMixture:
    """The old mixture with some classes of the new one."""
    tensors = old.tensors()
    chosen: dict[str, Any] = {
        name: torch.where(classes.view(-1, *[1] * (tensor.ndim - 1)), tensor, tensors[name])
        for name, tensor in new.tensors().items()
    }
    return ClassMixture(**chosen)


def expect(
    samples: Samples, mixture: ClassMixture, noise_variance: float, classes: Bool[Tensor, " cls"] | None = None
) -> tuple[Float[Tensor, " cls"], Moments]:
    """Log-likelihood of each class in nats, summed over its samples, and the moments under the responsibilities."""
    log_joint = _log_joint(mixture, noise_variance)
    evidence = torch.zeros_like(mixture.class_prior, dtype=torch.float64)

    def responsibility(group: Tiles, square: Float[Tensor, "tile row d"]) -> Float[Tensor, "tile k row"]:
        joint = log_joint(group, square)
        total = torch.logsumexp(joint, 1, keepdim=True)
        evidence.index_add_(0, group.cls, (total.squeeze(1) * group.present).sum(1).double())
        return (joint - total).exp()

    moments = accumulate(samples, mixture.weights.shape[1], responsibility, mixture.basis, classes)
    return evidence, moments


def _log_joint(mixture: ClassMixture, noise_variance: float) -> Share:
    """log π_k + E_ε log N(x + ε; μ_k, Σ_k + σ²I) of a group's samples, from products: the squares are expanded.

    The mean over the noise is log N(x; μ_k, S_k) − ½ σ² tr S_k⁻¹ with S_k = Σ_k + σ²I. With it the maximisation step is
    that without noise: S_k = cov + σ²I, so Σ_k = cov. At σ = 0 it is plain EM.
    """
    variances = mixture.variances + noise_variance
    precision = variances.reciprocal()
    pull = precision * mixture.means
    log_norm = mixture.weights.double().log() + normal_log_norm(variances.double())
    log_norm = log_norm - 0.5 * (pull.double() * mixture.means + noise_variance * precision).sum(-1)
    projector = shift = None
    if mixture.basis is not None and mixture.spread is not None:
        root, half_log_det = woodbury(variances, mixture.basis, mixture.spread)
        log_norm = log_norm - half_log_det + 0.5 * noise_variance * root.square().sum((-1, -2))
        shift = (root @ mixture.means.unsqueeze(-1)).flatten(1)
        projector = root.flatten(1, 2)
    constant = log_norm.to(precision.dtype).unsqueeze(2)

    def log_joint(group: Tiles, square: Float[Tensor, "tile row d"]) -> Float[Tensor, "tile k row"]:
        cls, points = group.cls, group.points.transpose(1, 2)
        joint = torch.baddbmm(constant[cls], precision[cls], square.transpose(1, 2), alpha=-0.5)
        joint = torch.baddbmm(joint, pull[cls], points)
        if projector is not None and shift is not None:
            along = torch.bmm(projector[cls], points) - shift[cls].unsqueeze(2)
            joint = joint + 0.5 * along.square().view(*joint.shape[:2], root.shape[2], joint.shape[2]).sum(2)
        return joint

    return log_joint
