"""Fit of diagonal covariances with a part of low rank: Σ_ck = diag(v_ck) + U_c diag(λ_ck) U_cᵀ."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from cem.mixture.em import TOLERANCE, VARIANCE_FLOOR, Moments, expect, from_moments, replaced
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Samples

_EM_ROUNDS = 8
_MATCHING_ROUNDS = 50
_DIAGONAL_SHARE = 1e-3  # of a dimension's variance the diagonal keeps at least this: Σ⁻¹ stays computable in float32


def match(
    variances: Float[Tensor, "cls k d"], along: Float[Tensor, "cls k rank"], basis: Float[Tensor, "cls d rank"]
) -> tuple[Float[Tensor, "cls k d"], Float[Tensor, "cls k rank"]]:
    """v and λ ≥ 0 such that Σ = diag(v) + U diag(λ) Uᵀ has the given variances of the dimensions and along U.

    With Q = U∘U: v = s − Qλ and λ = t − Qᵀv, alternated from λ = 0. Without bounds this is the Neumann series of
    (I − QᵀQ) λ = t − Qᵀs, and QᵀQ ≤ 1 for orthonormal U; a direction along an axis is left to the diagonal.
    """
    squared = basis.double().square()
    floor = (_DIAGONAL_SHARE * variances).clamp_min(VARIANCE_FLOOR)
    diagonal, spread = variances, torch.zeros_like(along)
    for _ in range(_MATCHING_ROUNDS):
        spread = (along - diagonal @ squared).clamp_min(0)
        diagonal = torch.maximum(variances - spread @ squared.transpose(1, 2), floor)
    return diagonal, spread


def with_basis(
    moments: Moments, basis: Float[Tensor, "cls d rank"], class_prior: Float[Tensor, " cls"]
) -> ClassMixture:
    """The mixture whose variances, of the dimensions and along the basis, are the moments'."""
    diagonal, spread = match(moments.variances, moments.along(basis), basis)
    mixture = from_moments(moments, "diag", class_prior)
    dtype = class_prior.dtype
    return replace(mixture, variances=diagonal.to(dtype), basis=basis, spread=spread.to(dtype))


def em_with_basis(samples: Samples, diagonal: ClassMixture, basis: Float[Tensor, "cls d rank"]) -> ClassMixture:
    """A few rounds of expectation and matching from a diagonal mixture; of each class the likeliest is kept.

    Matching is no exact maximisation, so the likelihood may fall; the diagonal mixture itself is the first candidate.
    """
    classes, components = diagonal.weights.shape
    none = diagonal.weights.new_zeros(classes, components, basis.shape[2])
    mixture = best = replace(diagonal, basis=basis, spread=none)
    highest = torch.full_like(diagonal.class_prior, -torch.inf, dtype=torch.float64)
    for _ in range(_EM_ROUNDS):
        evidence, moments = expect(samples, mixture)
        best = replaced(best, mixture, evidence > highest)
        if not bool((evidence - highest > TOLERANCE * samples.counts).any()):
            break
        highest = torch.maximum(highest, evidence)
        mixture = with_basis(moments, basis, diagonal.class_prior)
    return best
