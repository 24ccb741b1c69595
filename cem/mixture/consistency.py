"""A self-test of a leakage estimate: its slope in 1/σ² is half the error of the estimate of ẑ from z."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cem.mixture.model import ClassMixture

_STEPS = (-2, -1, 0, 1, 2)  # σ times 2^(step/4): from σ/√2 to σ√2
_SIMPSON = (1 / 3, 4 / 3, 2 / 3, 4 / 3, 1 / 3)  # times the step in log(1/σ²)
_LEAST_NATS = 0.01  # between the ends of the grid: below, the ratio is one of two small numbers


def log_marginal(
    mixture: ClassMixture, z: Float[Tensor, "n d"], noise_std: float, class_prior: Float[Tensor, " cls"]
) -> Float[Tensor, " n"]:
    """log q(z) = log Σ_y π_y q(z|y) in nats per image, in float64; σ may be 0."""
    return (mixture.log_densities(z, noise_std) + class_prior.double().log()).logsumexp(1)


def posterior_mean(
    mixture: ClassMixture, z: Float[Tensor, "n d"], noise_std: float, class_prior: Float[Tensor, " cls"]
) -> Float[Tensor, "n d"]:
    """E[ẑ | z = ẑ + ε] where ẑ is of the mixture: z + σ² ∇ log q(z), in float64. Source: Robbins 1956 (Tweedie)."""
    with torch.enable_grad():
        given = z.detach().double().requires_grad_()
        (slope,) = torch.autograd.grad(log_marginal(mixture, given, noise_std, class_prior).sum(), given)
    return given.detach() + noise_std**2 * slope


def i_mmse(
    mixture: ClassMixture,
    smashed: Float[Tensor, "n d"],
    class_prior: Float[Tensor, " cls"],
    noise_std: float,
    generator: torch.Generator,
) -> tuple[float, float] | None:
    """How much the leakage estimate grows from σ√2 to σ/√2, over what I-MMSE says, and its standard error: 1 ± 0.

    The estimate is E log p(z|ẑ) − log q(z); its slope in 1/σ² is ½ E‖ẑ − E_q[ẑ|z]‖², whether or not ẑ is of the
    mixture q. σ > 0. Noise is drawn here, as ±ε. None where less than 0.01 nats are gained, and there is no slope to
    test. Source: docs/theory.md, "The slope of the leakage".
    """
    drawn = torch.randn(smashed.shape, generator=generator, device=smashed.device, dtype=smashed.dtype).double()
    clean = smashed.double()
    step = 0.25 * 2 * math.log(2)
    ends: list[Tensor] = []
    expected = torch.zeros_like(clean[:, 0])
    for place, weight in zip(_STEPS, _SIMPSON, strict=True):
        std = noise_std * 2.0 ** (place / 4)
        estimate, error = torch.zeros_like(expected), torch.zeros_like(expected)
        for noise in (drawn, -drawn):
            z = clean + std * noise
            log_channel = -0.5 * (noise.square() + math.log(2 * math.pi * std**2)).sum(1)
            estimate += 0.5 * (log_channel - log_marginal(mixture, z, std, class_prior))
            error += 0.5 * (clean - posterior_mean(mixture, z, std, class_prior)).square().sum(1)
        ends.append(estimate)
        expected += weight * step * 0.5 * error / std**2  # ds = s d(log s), s = 1/σ²
    gained = ends[0] - ends[-1]
    if float(expected.mean()) < _LEAST_NATS:
        return None
    ratio = float(gained.mean() / expected.mean())
    rest = gained - ratio * expected
    return ratio, float(rest.std()) / len(rest) ** 0.5 / float(expected.mean())
