"""Laws of the per-class mixtures: scikit-learn's numbers, known entropies, recovered parameters, refusals."""

import math

import pytest
import torch
from sklearn.mixture import GaussianMixture

from cem.mixture import ClassMixture, MixtureError, fit_mixture, load_mixture, noise_entropy, save_mixture

CLASSES, COMPONENTS, DIM = 3, 2, 6


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def separated(spread: float = 0.05) -> ClassMixture:
    means = torch.randn(CLASSES, COMPONENTS, DIM, generator=generator(1))
    variances = spread**2 * (0.5 + torch.rand(CLASSES, COMPONENTS, DIM, generator=generator(2)))
    weights = torch.tensor([[0.5, 0.5], [0.3, 0.7], [0.8, 0.2]])
    return ClassMixture(weights, means, variances, torch.full((CLASSES,), 1 / CLASSES))


def draw(mixture: ClassMixture, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(n) % CLASSES
    return mixture.sample(labels, generator=generator(seed)), labels


def test_log_density_is_scikit_learns() -> None:
    mixture = separated()
    z, labels = draw(mixture, 60, 3)
    noise = 0.1
    for c in range(CLASSES):
        reference = GaussianMixture(COMPONENTS, covariance_type="diag")
        reference.weights_ = mixture.weights[c].double().numpy()
        reference.means_ = mixture.means[c].double().numpy()
        reference.covariances_ = (mixture.variances[c] + noise**2).double().numpy()
        reference.precisions_cholesky_ = reference.covariances_**-0.5
        own = labels == c
        expected = torch.from_numpy(reference.score_samples(z[own].double().numpy())).float()
        torch.testing.assert_close(mixture.log_density(z[own], labels[own], noise), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("fit", ["kmeans", "em"])
def test_fit_recovers_a_separated_mixture(fit: str) -> None:
    true = separated()
    z, labels = draw(true, 6000, 4)
    fitted = fit_mixture(z, labels, components=COMPONENTS, fit=fit, generator=generator(5))
    for c in range(CLASSES):
        match = torch.cdist(true.means[c], fitted.means[c]).argmin(1)
        assert sorted(match.tolist()) == [0, 1]
        torch.testing.assert_close(fitted.weights[c, match], true.weights[c], atol=0.03, rtol=0)
        torch.testing.assert_close(fitted.means[c, match], true.means[c], atol=0.01, rtol=0)
        torch.testing.assert_close(fitted.variances[c, match], true.variances[c], rtol=0.15, atol=0)


def test_em_is_as_likely_on_held_out_data_as_scikit_learns() -> None:
    true = separated(spread=0.6)  # overlapping: hard k-means is wrong here
    z, labels = draw(true, 3000, 6)
    held, held_labels = draw(true, 3000, 7)
    ours = fit_mixture(z, labels, components=COMPONENTS, fit="em", generator=generator())
    theirs = torch.empty(len(held))
    for c in range(CLASSES):
        own = held_labels == c
        model = GaussianMixture(COMPONENTS, covariance_type="diag", random_state=0).fit(z[labels == c].double().numpy())
        theirs[own] = torch.from_numpy(model.score_samples(held[own].double().numpy())).float()
    assert ours.log_density(held, held_labels).mean() > theirs.mean() - 0.02


@pytest.mark.parametrize("noise_std", [0.05, 0.3])
def test_leakage_of_the_true_mixture_is_the_mutual_information_and_of_any_other_more(noise_std: float) -> None:
    true = separated()
    z, labels = draw(true, 6000, 8)
    leakage = true.leakage(z, labels, noise_std, generator(9)).mean()
    # Separated components: I(x; z) = H(component) + ½ Σ log(1 + v/σ²), up to the little that the noise confuses.
    assert leakage == pytest.approx(true.leakage_bound(noise_std), rel=0.02)
    wrong = ClassMixture(true.weights, true.means + 0.1, true.variances * 2, true.class_prior)
    assert wrong.leakage(z, labels, noise_std, generator(9)).mean() > leakage
    assert true.leakage_bound(noise_std) > true.leakage_bound(2 * noise_std)


def test_no_noise_leaks_without_limit() -> None:
    mixture = separated()
    z, labels = draw(mixture, 6, 0)
    assert mixture.leakage_bound(0.0) == math.inf
    assert torch.isinf(mixture.leakage(z, labels, 0.0, generator())).all()
    assert noise_entropy(3, 0.0) == -math.inf


def test_spherical_variances_are_the_diagonals_mean() -> None:
    z, labels = draw(separated(), 300, 1)
    diag = fit_mixture(z, labels, components=1, generator=generator())
    sphere = fit_mixture(z, labels, components=1, covariance="spherical", generator=generator())
    torch.testing.assert_close(sphere.variances, diag.variances.mean(-1, keepdim=True).expand_as(diag.variances))


def test_order_of_samples_does_not_matter_from_a_warm_start() -> None:
    start = separated()
    z, labels = draw(start, 600, 2)
    order = torch.randperm(600, generator=generator())
    options = {"components": COMPONENTS, "start": start}
    one = fit_mixture(z, labels, generator=generator(), **options)
    other = fit_mixture(z[order], labels[order], generator=generator(), **options)
    torch.testing.assert_close(one.means, other.means)


def test_empty_components_are_seeded_anew() -> None:
    true = separated()
    z, labels = draw(true, 600, 3)
    far = ClassMixture(true.weights, true.means.clone(), true.variances, true.class_prior)
    far.means[:, 1] = 100.0
    fitted = fit_mixture(z, labels, components=COMPONENTS, start=far, generator=generator())
    assert (fitted.weights > 0.1).all()


def test_coinciding_samples_have_a_floor_of_variance() -> None:
    mixture = fit_mixture(torch.ones(8, 4), torch.arange(8) % 2, components=3, generator=generator())
    assert torch.isfinite(mixture.leakage_bound(0.1) * torch.ones(()))
    assert (mixture.variances > 0).all()


def test_refusals_say_what_to_do() -> None:
    z, labels = draw(separated(), 6, 0)
    with pytest.raises(MixtureError, match=r"class 0 has 2 samples for 3 components.*fewer components"):
        fit_mixture(z, labels, components=3, generator=generator())
    z[0, 0] = math.nan
    with pytest.raises(MixtureError, match=r"not finite.*learning rate"):
        fit_mixture(z, labels, components=1, generator=generator())


def test_file_round_trip(tmp_path) -> None:
    mixture = separated()
    save_mixture(tmp_path / "m.h5", mixture, {}, {"leakage_nats": math.inf})
    loaded = load_mixture(tmp_path / "m.h5")
    assert all(torch.equal(getattr(loaded, n), getattr(mixture, n)) for n in ("weights", "means", "variances"))
