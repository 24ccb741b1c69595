"""Known entropy: what is measured is never below the truth, and EM comes close to it.

ẑ is drawn from a known mixture. T = h(z|y) + H(y) − h(ε) is a mean over many draws of the true density's own leakage.
What a fit measures on fresh draws is T plus its mean excess over the true density on the same draws, noise included.
"""

import pytest
import torch

from cem.mixture import ClassMixture, fit_mixture

REPETITIONS = 50
SAMPLES = {8: 2000, 64: 3000, 512: 4000}  # for each four classes


def case(repetition: int) -> dict[str, float]:
    """Walks through sizes, numbers, overlap and noise, each with its own period."""
    return {
        "d": (8, 64, 512)[repetition % 3],
        "classes": (2, 4, 10)[repetition % 7 % 3],
        "components": 1 + repetition % 4,
        "apart": (2.0, 6.0, 12.0)[repetition // 3 % 3],
        "noise_std": (0.01, 0.1, 1.0)[repetition // 5 % 3],
        "std": (0.5, 0.1)[repetition % 2],
    }


def measured(true: ClassMixture, fitted: ClassMixture, noise_std: float, draw, seed: int) -> tuple[float, float]:
    """T, and what the fitted mixture measures, in nats."""

    def leakage(of: ClassMixture, samples: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return of.leakage(*samples, noise_std, torch.Generator().manual_seed(seed)).double()

    truth = float(leakage(true, draw(true, 6000, 1000 + seed)).mean())
    fresh = draw(true, 1500, 2000 + seed)
    return truth, truth + float((leakage(fitted, fresh) - leakage(true, fresh)).mean())


@pytest.mark.parametrize("repetition", range(REPETITIONS))
def test_em_measures_the_leakage_within_five_percent_and_never_less(repetition, mixture, draw, generator) -> None:
    settings = case(repetition)
    noise_std = settings.pop("noise_std")
    true = mixture(seed=repetition, **settings)
    z, labels = draw(true, SAMPLES[settings["d"]] * max(1, settings["classes"] // 4), 3000 + repetition)
    fitted = fit_mixture(z, labels, components=settings["components"], fit="em", generator=generator(repetition))
    truth, found = measured(true, fitted, noise_std, draw, repetition)
    assert 0.99 * truth <= found <= 1.05 * truth


@pytest.mark.parametrize("fit", ["kmeans", "em"])
@pytest.mark.parametrize("covariance", ["spherical", "diag", "pca"])
@pytest.mark.parametrize("noise_std", [0.01, 0.3])
def test_no_fit_measures_less_than_the_truth(mixture, draw, generator, covariance, fit, noise_std) -> None:
    for seed in range(3):
        true = mixture(d=16, components=3, apart=4, rank=3, std=0.3, seed=seed)  # none but pca can be right
        z, labels = draw(true, 900, seed)
        fitted = fit_mixture(z, labels, components=2, covariance=covariance, rank=2, fit=fit, generator=generator(seed))
        truth, found = measured(true, fitted, noise_std, draw, seed)
        assert found >= 0.99 * truth


def test_pca_measures_less_than_diagonal_where_dimensions_correlate(mixture, draw, generator) -> None:
    true = mixture(d=64, apart=10, rank=4)
    z, labels = draw(true, 6000, 1)
    found = {}
    for covariance in ("diag", "pca"):
        fitted = fit_mixture(z, labels, components=2, covariance=covariance, rank=4, fit="em", generator=generator())
        truth, found[covariance] = measured(true, fitted, 0.1, draw, 1)
    assert 0.99 * truth <= found["pca"] <= 1.05 * truth < found["diag"]
