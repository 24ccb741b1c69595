"""Covariances of the form diag(v) + U diag(λ) Uᵀ: determinant and quadratic form without a d × d matrix."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def capacity(
    variances: Float[Tensor, "*batch d"],
    noise_variance: float,
    basis: Float[Tensor, "*basis d rank"] | None = None,
    spread: Float[Tensor, "*batch rank"] | None = None,
) -> Float[Tensor, "*batch"]:
    """½ log(|Σ + σ²I| / |σ²I|) in nats, Σ = diag(variances) + basis · diag(spread) · basisᵀ.

    What a Gaussian of covariance Σ can send through noise of variance σ² > 0, for one image. basis: its leading
    dimensions are the batch's, or broadcast to them. Differentiable in all arguments.
    Source: Theorem 2 (arXiv 2503.00383); |D + UΛUᵀ| = |D| · |I + Λ UᵀD⁻¹U| (matrix determinant lemma).
    """
    diagonal = 0.5 * torch.log1p(variances / noise_variance).sum(-1)
    if basis is None or spread is None:
        return diagonal
    inner = basis.transpose(-1, -2) @ (basis / (variances + noise_variance).unsqueeze(-1))
    ratio = torch.eye(basis.shape[-1], device=basis.device, dtype=basis.dtype) + spread.unsqueeze(-1) * inner
    # Not the root of spread, whose gradient is infinite at 0.
    log_det: Tensor = torch.linalg.slogdet(ratio).logabsdet
    return diagonal + 0.5 * log_det


def woodbury(
    variances: Float[Tensor, "cls component d"],
    basis: Float[Tensor, "cls d rank"],
    spread: Float[Tensor, "cls component rank"],
) -> tuple[Float[Tensor, "cls component rank d"], Float[Tensor, "cls component"]]:
    """G and ½ log|A| with x ᵀΣ⁻¹x = Σ_d x_d² / v_d − ‖G x‖² and log|Σ| = Σ_d log v_d + log|A|.

    B = U√λ, A = I + BᵀD⁻¹B = LLᵀ (rank × rank), G = L⁻¹BᵀD⁻¹. Source: Woodbury's identity.
    """
    scaled = (basis.unsqueeze(1) * spread.sqrt().unsqueeze(-2)).transpose(-1, -2)
    weighted = scaled / variances.unsqueeze(-2)
    inner = weighted @ scaled.transpose(-1, -2)
    root = torch.linalg.cholesky(inner + torch.eye(inner.shape[-1], device=inner.device, dtype=inner.dtype))
    projector = torch.linalg.solve_triangular(root, weighted, upper=False)
    return projector, root.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def normal_log_norm(variances: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Log of the height of a Gaussian with the given variances: −½ Σ_d log(2πv_d), in nats."""
    return -0.5 * (math.log(2 * math.pi) + variances.log()).sum(-1)
