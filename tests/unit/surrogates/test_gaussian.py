"""The Gaussian surrogate: an upper bound that tightens with earlier batches, learns nothing and draws nothing."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from cem.config import GaussianSurrogate, Threshold
from cem.surrogates import SurrogateError, make_surrogate
from cem.surrogates.gaussian import Gaussian, class_means_and_deviations, displacements

from .populations import POPULATIONS, Population, generator

SHAPE, CLASSES, SIGMA = (4, 3, 3), 5, 0.2
DIM = math.prod(SHAPE)


class Correlated:
    """ẑ of a known Gaussian in each class: its numbers are correlated over channels and positions."""

    def __init__(self, classes: int = CLASSES) -> None:
        self.classes = classes
        self.means = torch.randn(classes, DIM, generator=generator(1))
        self.mixing = torch.randn(DIM, DIM, generator=generator(2)) / DIM**0.5 * torch.linspace(1, 0.05, DIM)
        covariance = (self.mixing @ self.mixing.T).double()
        capacity = 0.5 * torch.logdet(torch.eye(DIM).double() + covariance / SIGMA**2)
        self.leakage = float(capacity) + math.log(classes)

    def draw(self, n: int, seed: int, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        draws = generator(seed)
        if labels is None:
            labels = torch.randint(self.classes, (n,), generator=draws)
        own = torch.randn(n, DIM, generator=draws) @ self.mixing.T
        return (self.means[labels] + own).view(n, *SHAPE), labels


def make(classes: int = CLASSES, **settings) -> Gaussian:
    cfg = GaussianSurrogate(**settings)
    return make_surrogate(cfg, smashed_shape=SHAPE, num_classes=classes, noise_std=SIGMA)


def epoch(surrogate: Gaussian, population: Correlated, batches: int, first_seed: int = 100) -> list[float]:
    """What it says of the batches of an epoch, 64 samples each."""
    surrogate.begin_epoch(0.0)
    with torch.no_grad():
        said = [surrogate(*population.draw(64, first_seed + i)).leakage_nats for i in range(batches)]
    return torch.stack(said).tolist()


def test_it_is_above_the_leakage_of_a_known_gaussian_and_comes_within_a_tenth_of_it() -> None:
    population = Correlated()
    epochs = torch.tensor([epoch(make(), population, 17, 1000 * i) for i in range(20)]).mean(0)
    assert epochs.min() >= 0.99 * population.leakage
    assert epochs[16] <= 1.1 * population.leakage
    assert epochs[16] < epochs[4] < epochs[1] < epochs[0]
    independent = math.log(CLASSES) + float(0.5 * torch.log1p(population.mixing.square().sum(1) / SIGMA**2).sum())
    assert epochs[16] < 0.9 * independent, "correlations are what it has over independent numbers"


@pytest.mark.parametrize("name", POPULATIONS)
def test_it_never_says_less_than_the_truth_of_other_populations(name: str) -> None:
    population: Population = POPULATIONS[name]
    surrogate = make_surrogate(
        GaussianSurrogate(),
        smashed_shape=population.shape,
        num_classes=population.classes,
        noise_std=population.noise_std,
    )
    with torch.no_grad():
        said = [surrogate(*population.draw(120, 500 + seed)).leakage_nats for seed in range(20)]
    assert torch.stack(said).mean() >= 0.99 * population.expected_leakage()


def test_fifty_classes_of_two_images_are_not_memorised() -> None:
    """What is fitted to a sample and scores it again in the next epoch says less than the truth before long."""
    population, surrogate = Correlated(50), make(50)
    smashed, labels = population.draw(100, 5, torch.arange(100) % 50)
    said = []
    for number in range(30):
        surrogate.begin_epoch(number / 29)
        order = torch.randperm(100, generator=generator(number))
        with torch.no_grad():
            terms = [surrogate(smashed[rows], labels[rows]).leakage_nats for rows in order.split(50)]
        said.append(float(torch.stack(terms).mean()))
    assert min(said) >= population.leakage
    assert sum(said[-10:]) == pytest.approx(sum(said[:10]), rel=0.02)


def test_an_epoch_forgets_the_one_before() -> None:
    population, surrogate = Correlated(), make()
    assert epoch(surrogate, population, 3) == epoch(surrogate, population, 3)


def test_the_scored_samples_do_not_move_their_density() -> None:
    """Their gradient is the density's own at each sample: through no mean and no covariance."""
    population, surrogate = Correlated(), make()
    epoch(surrogate, population, 4)
    density = surrogate._density(surrogate.smashed[:256], surrogate.labels[:256])
    smashed, labels = population.draw(64, 9)
    clean = smashed.requires_grad_()
    surrogate(clean, labels).loss.backward()
    deviation = smashed.detach().flatten(1).double() - density.means[labels]
    expected = torch.cholesky_solve(deviation.T, density.factor).T / (64 * DIM)
    torch.testing.assert_close(clean.grad.flatten(1).double(), expected, rtol=1e-4, atol=1e-7)


def test_its_gradient_is_that_of_the_entropy_where_the_density_is_right() -> None:
    """d/da ½ log|a²Σ + σ²I| at a = 1, from 20,000 samples scaled by a."""
    population, surrogate = Correlated(), make(support=20_000)
    for seed in range(4):
        surrogate(*population.draw(5000, seed))
    smashed, labels = population.draw(5000, 9)
    scale = torch.ones((), requires_grad=True)
    means = population.means[labels].view_as(smashed)
    surrogate(means + scale * (smashed - means), labels).loss.backward()
    covariance = (population.mixing @ population.mixing.T).double()
    expected = torch.trace(torch.linalg.solve(covariance + SIGMA**2 * torch.eye(DIM), covariance)) / DIM
    assert float(scale.grad) == pytest.approx(float(expected), rel=0.03)


@pytest.mark.parametrize("threshold", [Threshold(), Threshold(kind="fixed", value=1e-3)])
@pytest.mark.parametrize("batches", [1, 3])
def test_gradient_against_finite_differences(threshold: Threshold, batches: int) -> None:
    """After earlier batches: what a sample does to the densities of later ones is no part of its gradient."""
    population = Correlated()

    def loss(clean: Tensor) -> Tensor:
        surrogate = make(threshold=threshold).double()
        for seed in range(batches):
            smashed, labels = population.draw(64, seed)
            surrogate(smashed.double(), labels)
        return surrogate(clean, torch.arange(12) % CLASSES).loss

    clean = population.draw(12, 9, torch.arange(12) % CLASSES)[0].double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(clean), clean)
    for seed in range(3):
        direction = torch.randn(clean.shape, generator=generator(seed)).double()
        step = 1e-5
        with torch.no_grad():
            slope = (loss(clean + step * direction) - loss(clean - step * direction)) / (2 * step)
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-5)


def test_a_batch_before_any_other_is_scored_half_by_half_with_a_gradient_for_each_sample() -> None:
    surrogate = make()
    smashed, labels = Correlated().draw(21, 3)
    clean = smashed.requires_grad_()
    surrogate(clean, labels).loss.backward()
    assert (clean.grad.flatten(1).abs().sum(1) > 0).all()


def test_it_draws_nothing() -> None:
    smashed, labels = Correlated().draw(64, 3)
    found = []
    for seed in (1, 2):
        clean, draws = smashed.clone().requires_grad_(), generator(seed)
        terms = make()(clean, labels, draws)
        terms.loss.backward()
        assert torch.equal(draws.get_state(), generator(seed).get_state())
        found.append((terms.loss, terms.leakage_nats, clean.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_support_is_the_latest_samples_of_the_epoch() -> None:
    population, one, other = Correlated(), make(support=100), make(support=100)
    one(*population.draw(70, 1))
    for seed in (2, 3):
        one(*population.draw(50, seed))
        other(*population.draw(50, seed))
    same = population.draw(30, 9)
    assert torch.allclose(one(*same).leakage_nats, other(*same).leakage_nats, rtol=1e-5)
    one(*population.draw(300, 4))
    assert torch.equal(one.labels.sort().values, population.draw(300, 4)[1][-100:].sort().values)


def test_one_sample_is_scored_after_others_and_refused_before_them() -> None:
    population, surrogate = Correlated(), make()
    with pytest.raises(SurrogateError, match=r"needs two samples; found 1\. Use a larger batch_size"):
        surrogate(*population.draw(1, 0))
    surrogate(*population.draw(2, 0))
    assert surrogate(*population.draw(1, 1)).loss.isfinite()


def test_a_z_of_too_many_numbers_is_refused_with_the_count() -> None:
    cfg = GaussianSurrogate(max_dimensions=100)
    with pytest.raises(SurrogateError, match=r"z of 8×4×4 has 128, at most 100 are allowed"):
        make_surrogate(cfg, smashed_shape=(8, 4, 4), num_classes=2, noise_std=SIGMA)


def test_a_threshold_ends_the_pressure_but_not_the_measurement() -> None:
    smashed, labels = Correlated().draw(60, 0)
    high, none = (make(threshold=kind) for kind in (Threshold(kind="fixed", value=100.0), Threshold()))
    assert high(smashed, labels).loss.item() == 0
    high.begin_epoch(1.0)
    assert torch.equal(high(smashed, labels).leakage_nats, none(smashed, labels).leakage_nats)


def test_at_a_threshold_of_next_to_nothing_the_loss_counts_all_that_a_number_adds() -> None:
    """Then ½ Σ log((v + σ²)/σ²) of the innovations is what ẑ sends within its class."""
    population, cfg = Correlated(), {"threshold": Threshold(kind="fixed", value=1e-12, floor=1e-12)}
    surrogate = make(**cfg)
    for seed in range(16):
        surrogate(*population.draw(64, seed))
    loss = surrogate(*population.draw(4000, 99)).loss
    assert float(loss) * DIM == pytest.approx(population.leakage - math.log(CLASSES), rel=0.1)


def test_deviations_are_those_from_the_mean_that_the_other_samples_predict() -> None:
    population = Correlated(3)
    smashed, labels = population.draw(9, 4, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2]))
    flat = smashed.flatten(1)
    means, deviation = class_means_and_deviations(flat, labels, 4)
    assert torch.allclose(means[3], flat.mean(0), atol=1e-5), "a class without samples has the mean of all"
    weight = ((flat[labels == 0].sum(0) - 4 * means[0]) / (means[0] - flat.mean(0))).mean()  # of the mean of all
    for i in range(9):
        rest = torch.arange(9) != i
        own = flat[rest & (labels == labels[i])]
        predicted = (own.sum(0) + weight * flat[rest].mean(0)) / (len(own) + weight)
        assert torch.allclose(deviation[i], flat[i] - predicted, atol=1e-3)


def test_classes_far_apart_keep_means_of_their_own_and_classes_alike_share_one() -> None:
    flat, labels = torch.randn(100, 8, generator=generator()), torch.arange(100) % 50
    near, _ = class_means_and_deviations(flat, labels, 50)
    assert (near - flat.mean(0)).square().mean() < 0.1
    centres = 30 * torch.randn(50, 8, generator=generator(1))
    far, _ = class_means_and_deviations(flat + centres[labels], labels, 50)
    assert torch.allclose(far, (flat[:50] + flat[50:]) / 2 + centres, atol=0.2)


def test_the_stationary_correlation_is_a_mean_over_positions_and_a_covariance() -> None:
    surrogate, (channels, height, width) = make(), SHAPE
    samples = torch.randn(5, DIM, generator=generator(3))
    correlation = samples.T @ samples
    found = surrogate._stationary(correlation).view(channels, height, width, channels, height, width)
    own = correlation.view_as(found)
    for a, b, down, right in product(range(2), range(2), range(-2, 3), range(-2, 3)):
        cells = [(i, j) for i, j in product(range(3), range(3)) if 0 <= i + down < 3 and 0 <= j + right < 3]
        mean = sum(own[a, i + down, j + right, b, i, j] for i, j in cells) / (height * width)
        for i, j in cells:
            assert found[a, i + down, j + right, b, i, j] == pytest.approx(float(mean), abs=1e-4)
    assert torch.linalg.eigvalsh(found.reshape(DIM, DIM).double()).min() > -1e-4
    assert len(displacements(2, 5)) == 100
    assert displacements(2, 5).unique().numel() == 3 * 9
