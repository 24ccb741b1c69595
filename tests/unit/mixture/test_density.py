import math
from dataclasses import replace

import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from cem.mixture import Background, ClassMixture, capacity, load_mixture, noise_entropy, save_mixture


def dense(mixture: ClassMixture, c: int, noise_std: float = 0.0) -> MixtureSameFamily:
    """A class's density with full covariances, in float64."""
    d = mixture.means.shape[-1]
    covariance = torch.diag_embed(mixture.variances[c].double()) + noise_std**2 * torch.eye(d).double()
    if mixture.basis is not None:
        basis = mixture.basis[c].double()
        covariance = covariance + basis @ torch.diag_embed(mixture.spread[c].double()) @ basis.T
    components = MultivariateNormal(mixture.means[c].double(), covariance)
    return MixtureSameFamily(Categorical(mixture.weights[c].double()), components)


def test_log_density_is_scikit_learns(mixture, draw) -> None:
    true, noise = mixture(), 0.1
    z, labels = draw(true, 60, 3)
    for c in range(3):
        reference = GaussianMixture(2, covariance_type="diag")
        reference.weights_ = true.weights[c].double().numpy()
        reference.means_ = true.means[c].double().numpy()
        reference.covariances_ = (true.variances[c] + noise**2).double().numpy()
        reference.precisions_cholesky_ = reference.covariances_**-0.5
        own = labels == c
        expected = torch.from_numpy(reference.score_samples(z[own].double().numpy())).float()
        torch.testing.assert_close(true.log_density(z[own], labels[own], noise), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("noise_std", [0.0, 0.05])
@pytest.mark.parametrize(("d", "rank"), [(6, 2), (40, 8), (5, 5), (6, 0)])
def test_log_density_is_that_of_full_covariances(mixture, draw, d, rank, noise_std) -> None:
    true = mixture(d=d, rank=rank)
    z, labels = draw(true, 5000, 3)  # more than one chunk
    z[:10] += 1.0  # far from every component
    found = true.log_density(z, labels, noise_std)
    for c in range(3):
        expected = dense(true, c, noise_std).log_prob(z[labels == c].double()).float()
        torch.testing.assert_close(found[labels == c], expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("noise_std", [0.0, 0.05])
def test_densities_of_all_classes_are_those_of_each(mixture, draw, rank, noise_std) -> None:
    true = mixture(rank=rank)
    true = replace(true, means=true.means + 100)  # squares are large
    z, _ = draw(true, 5000, 3)
    found = true.log_densities(z, noise_std)
    assert found.dtype == torch.float64
    for c in range(3):
        expected = dense(true, c, noise_std).log_prob(z.double())
        torch.testing.assert_close(found[:, c], expected, rtol=1e-8, atol=1e-6)


def test_the_background_integrates_to_one_and_has_the_moments_of_all_samples(draw, mixture) -> None:
    z, labels = draw(mixture(d=3), 500, 1)
    parts = [(z[:0], labels[:0]), (z[:200], labels[:200]), (z[200:], labels[200:])]
    found = Background.of(parts)
    torch.testing.assert_close(found.centre, z.double().mean(0))
    torch.testing.assert_close(found.variances, z.double().var(0, unbiased=False))
    grid = torch.linspace(-3000, 3000, 2_000_001).double().unsqueeze(1)
    one = Background(torch.full((1,), 0.5).double(), torch.full((1,), 0.2).double())
    density = one.log_density(grid, 0.1).exp()
    assert torch.trapezoid(density, grid.squeeze()) == pytest.approx(1, abs=1e-3)
    plane = torch.cartesian_prod(*[torch.linspace(-100, 100, 2001).double()] * 2)
    two = Background(torch.zeros(2).double(), torch.full((2,), 0.2).double())
    assert two.log_density(plane, 0.1).exp().sum() * 0.01 == pytest.approx(1, abs=0.02)


def test_log_density_integrates_to_one(mixture) -> None:
    true = mixture(classes=1, d=1, components=3)
    grid = torch.linspace(-3, 3, 20001).unsqueeze(1)
    density = true.log_density(grid, torch.zeros(20001, dtype=torch.int64), 0.1).exp()
    assert torch.trapezoid(density, grid.squeeze()) == pytest.approx(1, abs=1e-4)


def test_log_density_has_the_gradient_of_a_gaussian() -> None:
    single = ClassMixture(torch.ones(1, 1), torch.zeros(1, 1, 3), torch.full((1, 1, 3), 0.5), torch.ones(1))
    z = torch.tensor([[1.0, -2.0, 3.0]], requires_grad=True)
    single.log_density(z, torch.zeros(1, dtype=torch.int64), 0.5).sum().backward()
    torch.testing.assert_close(z.grad, -z.detach() / 0.75)


@pytest.mark.parametrize("rank", [0, 3])
def test_capacity_is_the_log_determinant_and_so_is_its_gradient(mixture, rank) -> None:
    true = mixture(d=7, rank=rank)
    leaves = [t.double().requires_grad_() for t in (true.variances, true.spread, true.basis) if t is not None]
    variances, basis, spread = leaves[0], None, None
    full = torch.diag_embed(variances)
    if rank:
        spread, basis = leaves[1], leaves[2].unsqueeze(1)
        full = full + basis @ torch.diag_embed(spread) @ basis.transpose(-1, -2)
    noisy = full + 0.01 * torch.eye(7).double()
    expected = 0.5 * (torch.logdet(noisy) - 7 * math.log(0.01))
    found = capacity(variances, 0.01, basis, spread)
    torch.testing.assert_close(found, expected)
    for ours, theirs in zip(
        torch.autograd.grad(found.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(true.log_det_ratio(0.1).double(), expected, rtol=1e-4, atol=1e-4)


def test_capacity_has_a_gradient_where_the_spread_is_zero(mixture) -> None:
    true = mixture(rank=2)
    spread = torch.zeros_like(true.spread, requires_grad=True)
    capacity(true.variances, 0.01, true.basis.unsqueeze(1), spread).sum().backward()
    assert (spread.grad > 0).all()
    assert torch.isfinite(spread.grad).all()


def test_capacity_broadcasts_nothing_by_mistake(mixture) -> None:
    true = mixture(rank=2)
    flat = capacity(true.variances.flatten(0, 1), 0.01, true.basis.repeat_interleave(2, 0), true.spread.flatten(0, 1))
    torch.testing.assert_close(flat.view(3, 2), true.log_det_ratio(0.1))


def test_samples_have_the_covariance(mixture) -> None:
    true = mixture(classes=2, components=1, d=5, rank=2)
    labels = torch.arange(40_000) % 2
    z = true.sample(labels, generator=torch.Generator().manual_seed(1))
    for c in range(2):
        expected = dense(true, c).component_distribution.covariance_matrix[0].float()
        torch.testing.assert_close(torch.cov(z[labels == c].T), expected, rtol=0.1, atol=1e-3)
        torch.testing.assert_close(torch.diag(expected), true.covariance_diagonal[c, 0])


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("noise_std", [0.05, 0.3])
def test_leakage_of_the_true_mixture_is_the_mutual_information_and_of_any_other_more(
    mixture, draw, noise_std, rank
) -> None:
    true = mixture(apart=40, rank=rank)
    z, labels = draw(true, 6000, 8)

    def leakage(of: ClassMixture) -> torch.Tensor:
        return of.leakage(z, labels, noise_std, torch.Generator().manual_seed(9)).mean()

    # Separated components: I(x; z) = H(component) + ½ log |Σ + σ²I| / |σ²I|, up to the little that the noise confuses.
    assert leakage(true) == pytest.approx(true.leakage_bound(noise_std), rel=0.03)
    for wrong in (
        replace(true, means=true.means + 0.1),
        replace(true, variances=true.variances * 2),
        replace(true, weights=true.weights.flip(1)),
    ):
        assert leakage(wrong) > leakage(true)
    assert true.leakage_bound(noise_std) > true.leakage_bound(2 * noise_std)


def test_class_shares_are_those_of_whom_is_asked_about(mixture, draw) -> None:
    """Whatever the shares, a bound; the least with those of the population."""
    true = mixture(apart=40)
    z, labels = draw(true, 4000, 8)
    uneven = replace(true, class_prior=torch.tensor([0.98, 0.01, 0.01]))

    def leakage(prior: torch.Tensor | None) -> float:
        draws = torch.Generator().manual_seed(9)
        return float(uneven.leakage(z, labels, 0.05, draws, prior).double().mean())

    truth = true.leakage_bound(0.05)
    assert leakage(true.class_prior) == pytest.approx(truth, rel=0.02)
    shares = torch.bincount(labels) / 4000
    assert leakage(None) - leakage(true.class_prior) == pytest.approx(
        float((shares * (true.class_prior / uneven.class_prior).log()).sum()), rel=1e-3
    )


def test_no_noise_leaks_without_limit(mixture, draw) -> None:
    true = mixture()
    z, labels = draw(true, 6, 0)
    assert true.leakage_bound(0.0) == math.inf
    assert torch.isinf(true.leakage(z, labels, 0.0, torch.Generator())).all()
    assert noise_entropy(3, 0.0) == -math.inf


@pytest.mark.parametrize("rank", [0, 2])
def test_file_round_trip(tmp_path, mixture, rank) -> None:
    true = mixture(rank=rank)
    save_mixture(tmp_path / "m.h5", true, {}, {"leakage_nats": math.inf})
    loaded = load_mixture(tmp_path / "m.h5")
    assert loaded.tensors().keys() == true.tensors().keys()
    assert len(loaded.tensors()) == (6 if rank else 4)
    assert all(torch.equal(tensor, true.tensors()[name]) for name, tensor in loaded.tensors().items())
