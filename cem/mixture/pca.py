"""Fit of diagonal covariances with a part of low rank: Σ_ck = diag(v_ck) + U_c diag(λ_ck) U_cᵀ."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from cem.mixture.em import TOLERANCE, Moments, expect, from_moments, replaced
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Samples

_EM_ROUNDS = 20
_MATCHING_ROUNDS = 50
_DIAGONAL_SHARE = 1e-5  # of a dimension's variance v + σ² is at least this: (Σ + σ²I)⁻¹ stays computable in float32


def match(
    variances: Float[Tensor, "cls k d"],
    along: Float[Tensor, "cls k rank"],
    basis: Float[Tensor, "cls d rank"],
    floor: Float[Tensor, "cls k d"],
) -> tuple[Float[Tensor, "cls k d"], Float[Tensor, "cls k rank"]]:
    """v ≥ floor and λ ≥ 0 such that Σ = diag(v) + U diag(λ) Uᵀ has the given variances of the dimensions and along U.

    With Q = U∘U: v = s − Qλ and λ = t − Qᵀv, alternated from λ = 0. Without bounds this is the Neumann series of
    (I − QᵀQ) λ = t − Qᵀs, and QᵀQ ≤ 1 for orthonormal U; a direction along an axis is left to the diagonal.
    """
    squared = basis.double().square()
    diagonal, spread = variances, torch.zeros_like(along)
    for _ in range(_MATCHING_ROUNDS):
        spread = (along - diagonal @ squared).clamp_min(0)
        diagonal = torch.maximum(variances - spread @ squared.transpose(1, 2), floor)
    return diagonal, spread


def with_basis(
    moments: Moments, basis: Float[Tensor, "cls d rank"], class_prior: Float[Tensor, " cls"], noise_variance: float
) -> ClassMixture:
    """The mixture whose variances, of the dimensions and along the basis, are the moments'."""
    floor = (_DIAGONAL_SHARE * moments.variances - noise_variance).clamp_min(moments.floor)
    diagonal, spread = match(moments.variances, moments.along(basis), basis, floor)
    mixture = from_moments(moments, "diag", class_prior)
    dtype = class_prior.dtype
    return replace(mixture, variances=diagonal.to(dtype), basis=basis, spread=spread.to(dtype))


def em_with_basis(
    samples: Samples, diagonal: ClassMixture, basis: Float[Tensor, "cls d rank"], noise_variance: float
) -> ClassMixture:
    """A few rounds of expectation and matching from a diagonal mixture; of each class the likeliest is kept.

    Likelihoods are those at +σ²I: without noise a dimension that hardly varies decides everything. Matching is no exact
    maximisation, so the likelihood may fall; the diagonal mixture itself is the first candidate.
    """
    classes, components = diagonal.weights.shape
    none = diagonal.weights.new_zeros(classes, components, basis.shape[2])
    mixture = best = replace(diagonal, basis=basis, spread=none)
    highest = torch.full_like(diagonal.class_prior, -torch.inf, dtype=torch.float64)
    previous = highest
    for number in range(_EM_ROUNDS):
        evidence, moments = expect(samples, mixture, noise_variance)
        best = replaced(best, mixture, evidence > highest)
        # The first round may fall below the diagonal mixture and rise above it later.
        if number > 1 and not bool((evidence - previous > TOLERANCE * samples.counts).any()):
            break
        previous, highest = evidence, torch.maximum(highest, evidence)
        mixture = with_basis(moments, basis, diagonal.class_prior, noise_variance)
    return best
