"""I-MMSE: the slope of the leakage estimate against the error of the posterior mean."""

import math

import pytest
import torch

from cem.mixture import i_mmse
from cem.mixture.consistency import posterior_mean

from . import populations


def known_posterior_mean(mixture, z, noise_std):
    """Σ_k p(k|z) (μ_k + Σ_k (Σ_k + σ²I)⁻¹ (z − μ_k)) with full matrices, and the components in a loop."""
    z = z.double()
    logs, means = [], []
    for c in range(len(mixture.weights)):
        for k in range(mixture.weights.shape[1]):
            covariance = torch.diag(mixture.variances[c, k].double())
            if mixture.basis is not None:
                basis = mixture.basis[c].double()
                covariance = covariance + basis @ torch.diag(mixture.spread[c, k].double()) @ basis.T
            noisy = covariance + noise_std**2 * torch.eye(z.shape[1]).double()
            density = torch.distributions.MultivariateNormal(mixture.means[c, k].double(), noisy)
            logs.append(density.log_prob(z) + (mixture.class_prior[c] * mixture.weights[c, k]).double().log())
            offset = z - mixture.means[c, k]
            means.append(mixture.means[c, k] + torch.linalg.solve(noisy, offset.T).T @ covariance)
    shares = torch.stack(logs).softmax(0)
    return (shares.unsqueeze(-1) * torch.stack(means)).sum(0)


@pytest.mark.parametrize("rank", [0, 3])
def test_posterior_mean(mixture, draw, rank) -> None:
    made = mixture(rank=rank, apart=3.0)
    z = draw(made, 50, 1)[0] + 0.1 * torch.randn(50, 6, generator=torch.Generator().manual_seed(2))
    expected = known_posterior_mean(made, z, 0.1)
    torch.testing.assert_close(posterior_mean(made, z, 0.1, made.class_prior), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("noise_std", [0.03, 0.1, 0.3])
@pytest.mark.parametrize("rank", [0, 3])
def test_known_slope(mixture, draw, rank, noise_std) -> None:
    """Within 3 %, and within the standard error that it states, on samples of the mixture itself."""
    made = mixture(rank=rank, apart=3.0)
    smashed = draw(made, 4000, 1)[0]
    ratio, sem = i_mmse(made, smashed, made.class_prior, noise_std, torch.Generator().manual_seed(3))
    assert ratio == pytest.approx(1, abs=0.03)
    assert abs(ratio - 1) < 3.5 * sem + 1e-3
    assert sem < 0.02


def test_the_estimate_of_a_wrong_mixture_has_the_slope_of_its_own_error(mixture) -> None:
    """ẑ of another law than the mixture's: the estimate is too high, and consistent all the same."""
    population = populations.mixture(6, 1)
    smashed, _ = population.draw(4000, 1)
    made = mixture(std=0.5, apart=3.0)
    ratio, sem = i_mmse(made, smashed, made.class_prior, 0.3, torch.Generator().manual_seed(3))
    assert ratio == pytest.approx(1, abs=0.03)
    assert abs(ratio - 1) < 3.5 * sem + 1e-3


def test_a_density_that_is_none_is_found_out(mixture, draw, monkeypatch) -> None:
    """A density whose normalisation forgets the noise in one dimension: the kind of fault that the test is for."""
    made = mixture(apart=3.0)
    smashed = draw(made, 2000, 1)[0]
    right = type(made).log_densities
    monkeypatch.setattr(
        type(made), "log_densities", lambda self, z, std: right(self, z, std) + 0.5 * math.log(0.01 + std**2)
    )
    ratio, sem = i_mmse(made, smashed, made.class_prior, 0.1, torch.Generator().manual_seed(3))
    assert abs(ratio - 1) > 5 * sem


def test_no_slope_where_nothing_is_leaked(mixture) -> None:
    made = mixture(classes=1, components=1, std=1e-6)
    smashed = made.means[0].expand(300, -1)
    assert i_mmse(made, smashed, made.class_prior, 0.1, torch.Generator().manual_seed(3)) is None
