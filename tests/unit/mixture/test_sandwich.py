"""Known populations: what is measured from below is never above the truth, and from above never below it."""

import math

import pytest
import torch

from cem.config import MixtureFit
from cem.defenses import GaussianNoise
from cem.mixture import Family, Leakage, Pairs, Samples, Scored, fit_family

from .populations import KINDS, Population, gaussian, mixture

CONFIGURED = MixtureFit(fit="em")


def scored(z: torch.Tensor, labels: torch.Tensor) -> Scored:
    return Scored(lambda: [(z, labels)], labels)


def measured(population: Population, noise_std: float, *, n: int = 1500, seed: int = 0) -> tuple[Leakage, Family]:
    private, val, test = (population.draw(size, seed + i) for i, size in ((1, n), (2, 400), (3, 800)))
    samples = Samples(lambda: [private], in_memory=True)
    draws = torch.Generator().manual_seed(seed)
    family = fit_family(samples, samples, CONFIGURED, draws, noise_std, noise_std)

    def purpose(name: str) -> torch.Generator:
        return torch.Generator().manual_seed(seed + len(name))

    return Leakage(scored(*val), scored(*test), purpose, GaussianNoise(noise_std)), family


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std() / len(values) ** 0.5)


@pytest.mark.parametrize("repetition", range(50))
def test_lower_bound_truth_upper_bound(repetition) -> None:
    """The luck of the draw of the test images is taken out: the exact density is scored on them, too."""
    d, noise_std = (4, 12, 40)[repetition % 3], (0.1, 0.5, 2.0)[repetition // 3 % 3]
    population = KINDS[repetition % 4](d, repetition)
    truth, _ = population.truth(noise_std)
    leakage, family = measured(population, noise_std, seed=repetition)
    found = leakage.at(GaussianNoise(noise_std), family)
    z, _ = population.draw(len(found.upper), repetition + 3)
    exact = population.information(z, GaussianNoise(1.0).unit(z, leakage.draws("scoring")), noise_std)
    below, below_error = mean_and_error(found.contrast.lower - exact)
    above, above_error = mean_and_error(found.upper - exact)
    twin, twin_error = mean_and_error(found.contrast.upper - exact)
    said = f"{truth + below:.2f} ≤ {truth:.2f} ≤ {truth + above:.2f}, {truth + twin:.2f} ({found.member})"
    print(KINDS[repetition % 4].__name__, d, noise_std, said)
    assert below <= 3 * below_error, said
    assert above >= -3 * above_error, said
    assert twin >= -3 * twin_error, said
    assert float(found.contrast.lower.mean()) <= found.contrast.ceiling + 1e-9
    assert above <= 0.3 * truth + 0.1, said


def test_bounds_are_tight_where_little_is_leaked() -> None:
    """Twenty images' worth of information in all: both sides within a tenth of a nat of the truth."""
    population = gaussian(6, 0)
    truth, _ = population.truth(2.0)
    leakage, family = measured(population, 2.0, n=4000)
    found = leakage.at(GaussianNoise(2.0), family)
    assert 0.1 < truth < 2
    assert float(found.contrast.lower.mean()) == pytest.approx(truth, abs=0.1)
    assert float(found.upper.mean()) == pytest.approx(truth, abs=0.1)
    assert not found.contrast.saturated


def test_a_constant_leaks_nothing() -> None:
    z, labels = torch.full((60, 5), 0.3), torch.arange(60) % 2
    samples = Samples(lambda: [(z, labels)], in_memory=True)
    family = fit_family(samples, samples, CONFIGURED, torch.Generator().manual_seed(0), 0.1, 0.1)
    leakage = Leakage(
        scored(z, labels), scored(z, labels), lambda _: torch.Generator().manual_seed(1), GaussianNoise(0.1)
    )
    found = leakage.at(GaussianNoise(0.1), family)
    # The labels' entropy is no part of what a constant says; the background costs a thousandth.
    assert float(found.upper.mean()) == pytest.approx(0, abs=2e-3)
    assert float(found.contrast.lower.mean()) == pytest.approx(0, abs=1e-9)
    assert float(leakage.pairs.at(GaussianNoise(0.0)).lower.mean()) == pytest.approx(0, abs=1e-9)


def test_pairs_are_what_their_densities_say() -> None:
    draws = torch.Generator().manual_seed(0)
    z, noise = 3 + 0.2 * torch.randn(7, 3, generator=draws), torch.randn(7, 3, generator=draws)
    seen = z.double() + 0.3 * noise.double()
    log_density = -0.5 * ((seen.unsqueeze(1) - z.double()) / 0.3).square().sum(-1)
    own = log_density.diagonal()
    lower = (own - log_density.logsumexp(1) + math.log(7)).mean()
    others = log_density.masked_fill(torch.eye(7, dtype=torch.bool), -math.inf)
    found = Pairs(z, noise).at(GaussianNoise(0.3))
    assert float(found.lower.mean()) == pytest.approx(float(lower), rel=1e-9)
    assert float(found.upper.mean()) == pytest.approx(float((own - others.logsumexp(1) + math.log(6)).mean()), rel=1e-9)
    assert found.ceiling == math.log(7)


def test_saturation_is_said_and_left_by_doubling() -> None:
    leakage, family = measured(gaussian(40, 1), 0.01)
    tight = leakage.at(GaussianNoise(0.01), family).contrast
    assert tight.saturated
    assert float(tight.lower.mean()) == pytest.approx(tight.ceiling, rel=1e-6)
    free = leakage.unsaturated(GaussianNoise(0.01))
    assert math.log2(free.noise_std / 0.01) == round(math.log2(free.noise_std / 0.01)) > 0
    assert not leakage.pairs.at(free).saturated
    assert leakage.pairs.at(free.sized(free.noise_std / 2)).saturated
    found = leakage.at(free, family)
    assert float(found.contrast.lower.mean()) <= float(found.upper.mean())
    assert not leakage.pairs.at(leakage.unsaturated(GaussianNoise(0.0))).saturated  # it finds a start of its own


def test_without_noise_images_are_told_apart_for_certain() -> None:
    draws = torch.Generator().manual_seed(0)
    z = torch.randn(6, 4, generator=draws).repeat_interleave(2, 0)  # each image twice
    found = Pairs(z, torch.randn(12, 4, generator=draws)).at(GaussianNoise(0.0))
    assert float(found.lower.mean()) == pytest.approx(math.log(6))
    assert float(found.upper.mean()) == pytest.approx(math.log(11))
    z[0] += 1
    assert math.isinf(float(Pairs(z, torch.randn(12, 4, generator=draws)).at(GaussianNoise(0.0)).upper.mean()))


def test_the_error_of_the_lower_bound_knows_that_images_are_shared() -> None:
    """The mean over 40 test sets of 100 images spreads as the standard error says."""
    means, errors = [], []
    for seed in range(40):
        z, _ = mixture(4, 1).draw(100, seed)
        lower = (
            Pairs(z, torch.randn(z.shape, generator=torch.Generator().manual_seed(seed))).at(GaussianNoise(1.0)).lower
        )
        mean, error = mean_and_error(lower)
        means.append(mean)
        errors.append(error)
    spread = float(torch.tensor(means).std())
    assert 0.7 < spread / (sum(errors) / len(errors)) < 1.4


def test_the_family_is_no_worse_than_its_best_member() -> None:
    for seed, kind in enumerate(KINDS):
        leakage, family = measured(kind(12, seed), 0.2, seed=seed)
        found = leakage.at(GaussianNoise(0.2), family)
        alone = {
            name: leakage.at(GaussianNoise(0.2), Family({name: member}, family.background)).upper
            for name, member in family.members.items()
        }
        best = min(float(values.mean()) for values in alone.values())
        assert len(alone) > 4
        assert torch.equal(found.upper, alone[found.member])
        assert float(found.upper.mean()) <= best + 3 * mean_and_error(found.upper)[1]


def test_rotation_changes_the_diagonal_bound_and_not_the_familys() -> None:
    """Gaussians of one entropy. By the diagonal member alone one of them leaks twice as much."""
    covariance = torch.diag(torch.logspace(0, -4, 24, dtype=torch.float64)).unsqueeze(0)
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1).long()
    diagonal, found = [], []
    for seed in range(4):
        turn = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(seed)).double()).Q
        turn = turn if seed else torch.eye(24).double()
        population = Population(one, torch.zeros(1, 24).double(), turn @ covariance @ turn.T, zero)
        leakage, family = measured(population, 0.05, n=3000, seed=1)
        alone = Family({"k1-diag-em": family.members["k1-diag-em"]}, family.background)
        diagonal.append(float(leakage.at(GaussianNoise(0.05), alone).upper.mean()))
        found.append(float(leakage.at(GaussianNoise(0.05), family).upper.mean()))
    truth, _ = population.truth(0.05)
    assert max(diagonal) > 1.5 * min(diagonal)
    assert max(found) < 1.05 * min(found)
    assert found == pytest.approx([truth] * 4, rel=0.07)
