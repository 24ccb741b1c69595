import math
from dataclasses import replace

import pytest
import torch
from sklearn.mixture import GaussianMixture

from cem.config import MixtureFit
from cem.mixture import MixtureError, fit_mixture, fit_mixture_stream


@pytest.mark.parametrize("fit", ["kmeans", "em"])
def test_fit_recovers_a_separated_mixture(mixture, draw, generator, fit) -> None:
    true = mixture(apart=20)
    z, labels = draw(true, 6000, 4)
    fitted = fit_mixture(z, labels, components=2, fit=fit, generator=generator(5))
    for c in range(3):
        match = torch.cdist(true.means[c], fitted.means[c]).argmin(1)
        assert sorted(match.tolist()) == [0, 1]
        torch.testing.assert_close(fitted.weights[c, match], true.weights[c], atol=0.04, rtol=0)
        torch.testing.assert_close(fitted.means[c, match], true.means[c], atol=0.02, rtol=0)
        torch.testing.assert_close(fitted.variances[c, match], true.variances[c], rtol=0.2, atol=0)
    torch.testing.assert_close(fitted.class_prior, torch.bincount(labels) / 6000)


@pytest.mark.parametrize(("apart", "d"), [(2.0, 6), (4.0, 6), (6.0, 40)])
def test_em_is_as_likely_on_held_out_data_as_scikit_learns(mixture, draw, generator, apart, d) -> None:
    true = mixture(d=d, apart=apart)  # overlapping: hard k-means is wrong here
    (z, labels), (held, held_labels) = draw(true, 3000, 6), draw(true, 3000, 7)
    ours = fit_mixture(z, labels, components=2, fit="em", generator=generator())
    theirs = torch.empty(len(held))
    for c in range(3):
        own = held_labels == c
        model = GaussianMixture(2, covariance_type="diag", random_state=0, n_init=3)
        model.fit(z[labels == c].double().numpy())
        theirs[own] = torch.from_numpy(model.score_samples(held[own].double().numpy())).float()
    assert ours.log_density(held, held_labels).mean() > theirs.mean() - 0.02


def test_em_never_ends_less_likely_than_it_starts(mixture, draw, generator) -> None:
    z, labels = draw(mixture(components=4, apart=3), 2000, 1)
    hard = fit_mixture(z, labels, components=4, generator=generator())
    soft = fit_mixture(z, labels, components=4, fit="em", start=hard, generator=generator())
    assert soft.log_density(z, labels).mean() > hard.log_density(z, labels).mean()


@pytest.mark.parametrize("fit", ["kmeans", "em"])
def test_pca_covariances_are_likelier_than_diagonal_ones_where_dimensions_correlate(
    mixture, draw, generator, fit
) -> None:
    true = mixture(d=24, rank=3, apart=15)
    (z, labels), (held, held_labels) = draw(true, 4000, 1), draw(true, 4000, 2)
    options = {"components": 2, "fit": fit}
    diag = fit_mixture(z, labels, generator=generator(), **options)
    pca = fit_mixture(z, labels, covariance="pca", rank=3, generator=generator(), **options)
    gap = (true.log_density(held, held_labels) - pca.log_density(held, held_labels)).mean()
    assert (pca.log_density(held, held_labels) - diag.log_density(held, held_labels)).mean() > 4 * gap
    identity = pca.basis.transpose(1, 2) @ pca.basis
    torch.testing.assert_close(identity, torch.eye(3).expand(3, 3, 3), atol=1e-5, rtol=0)
    # The moments that were matched: variance of each dimension, and along the basis.
    torch.testing.assert_close(pca.covariance_diagonal.mean(), true.covariance_diagonal.mean(), rtol=0.05, atol=0)
    assert pca.leakage_bound(0.05) == pytest.approx(true.leakage_bound(0.05), rel=0.05)


def test_pca_leaves_uncorrelated_dimensions_to_the_diagonal(mixture, draw, generator) -> None:
    z, labels = draw(mixture(components=1, d=12), 5000, 1)
    z[:, 0] *= 10  # the leading direction is an axis
    diag, pca = (
        fit_mixture(z, labels, components=1, covariance=covariance, rank=1, generator=generator())
        for covariance in ("diag", "pca")
    )
    assert (pca.basis[:, 0].abs() > 0.99).all()
    assert pca.leakage_bound(0.1) == pytest.approx(diag.leakage_bound(0.1), rel=1e-2)


def test_spherical_variances_are_the_diagonals_mean(mixture, draw, generator) -> None:
    z, labels = draw(mixture(), 300, 1)
    diag = fit_mixture(z, labels, components=1, generator=generator())
    sphere = fit_mixture(z, labels, components=1, covariance="spherical", generator=generator())
    torch.testing.assert_close(sphere.variances, diag.variances.mean(-1, keepdim=True).expand_as(diag.variances))


@pytest.mark.parametrize("fit", ["kmeans", "em"])
def test_order_of_samples_does_not_matter_from_a_warm_start(mixture, draw, generator, fit) -> None:
    start = mixture()
    z, labels = draw(start, 600, 2)
    order = torch.randperm(600, generator=generator())
    options = {"components": 2, "start": start, "fit": fit}
    one = fit_mixture(z, labels, generator=generator(), **options)
    other = fit_mixture(z[order], labels[order], generator=generator(), **options)
    torch.testing.assert_close(one.means, other.means)


def test_other_classes_do_not_matter(mixture, draw, generator) -> None:
    start = mixture(apart=3)
    z, labels = draw(start, 1500, 2)
    all_classes = fit_mixture(z, labels, components=2, fit="em", start=start, generator=generator())
    first = replace(start, **{name: tensor[:1] for name, tensor in start.tensors().items()})
    own = labels == 0
    alone = fit_mixture(z[own], labels[own], components=2, fit="em", start=first, generator=generator())
    torch.testing.assert_close(alone.means, all_classes.means[:1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(alone.variances, all_classes.variances[:1], rtol=1e-3, atol=0)


def test_empty_components_are_seeded_anew(mixture, draw, generator) -> None:
    far = mixture()
    z, labels = draw(far, 600, 3)
    far.means[:, 1] = 100.0
    fitted = fit_mixture(z, labels, components=2, start=far, generator=generator())
    assert (fitted.weights > 0.1).all()


@pytest.mark.parametrize("covariance", ["spherical", "diag", "pca"])
@pytest.mark.parametrize("fit", ["kmeans", "em"])
def test_coinciding_samples_have_a_floor_of_variance(generator, covariance, fit) -> None:
    z, labels = torch.ones(8, 4), torch.arange(8) % 2
    fitted = fit_mixture(z, labels, components=3, covariance=covariance, rank=2, fit=fit, generator=generator())
    assert math.isfinite(fitted.leakage_bound(0.1))
    assert (fitted.variances > 0).all()


def test_small_variances_far_from_the_origin_are_found(generator) -> None:
    z = 100 + 0.02 * torch.randn(4000, 5, generator=generator())
    fitted = fit_mixture(z, torch.zeros(4000, dtype=torch.int64), components=1, generator=generator())
    torch.testing.assert_close(fitted.variances, torch.full((1, 1, 5), 4e-4), rtol=0.1, atol=0)


def test_unbalanced_classes_of_any_order_are_fitted_each_on_its_own(generator) -> None:
    labels = torch.cat([torch.zeros(3000), torch.ones(5), torch.full((40,), 2)]).long()
    z = labels.unsqueeze(1) + 0.1 * torch.randn(len(labels), 3, generator=generator())
    fitted = fit_mixture(z, labels, components=1, generator=generator())
    for c in range(3):
        torch.testing.assert_close(fitted.means[c, 0], z[labels == c].mean(0))
        torch.testing.assert_close(fitted.variances[c, 0], z[labels == c].var(0, unbiased=False), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("fit", ["kmeans", "em"])
@pytest.mark.parametrize("covariance", ["diag", "pca"])
def test_a_class_has_a_component_for_every_two_of_its_images_at_most(generator, covariance, fit) -> None:
    labels = torch.cat([torch.zeros(40), torch.ones(1), torch.full((5,), 2)]).long()
    z = labels.unsqueeze(1) + 0.1 * torch.randn(46, 4, generator=generator())
    options = {"components": 3, "covariance": covariance, "rank": 2, "fit": fit, "generator": generator()}
    fitted = fit_mixture(z, labels, **options)
    assert (fitted.weights > 0).sum(1).tolist() == [3, 1, 2]
    assert fitted.notes[0].endswith("for want of images: class 1 (1 images): 1, class 2 (5 images): 2")
    torch.testing.assert_close(fitted.weights.sum(1), torch.ones(3))
    assert torch.isfinite(fitted.log_density(z, labels, 0.1)).all()
    again = fit_mixture(z, labels, **options, start=fitted)
    assert (again.weights > 0).sum(1).tolist() == [3, 1, 2]
    assert not fit_mixture(z, labels, components=1, fit=fit, generator=generator()).notes


@pytest.mark.parametrize("fit", ["kmeans", "em"])
def test_an_empty_low_rank_part_is_said(generator, fit) -> None:
    z, labels = torch.randn(400, 6, generator=generator()), torch.arange(400) % 2
    z[:, 1] += z[:, 0]
    z[labels == 1] = 0.5
    options = {"components": 1, "rank": 1, "fit": fit, "generator": generator()}
    fitted = fit_mixture(z, labels, covariance="pca", **options)
    assert (fitted.spread > 0).flatten().tolist() == [True, False]
    assert fitted.notes == ("the low-rank part is empty, as if the covariance were diag, in 1 classes: 1",)
    assert not fit_mixture(z, labels, covariance="diag", **options).notes


@pytest.mark.parametrize("components", [1, 2])
def test_what_the_low_rank_part_leaves_may_be_far_below_the_noise(generator, components) -> None:
    """Dimensions that are one number a component, up to a thousandth: the rest of their variance leaks nothing."""
    d, noise_std = 32, 0.02
    labels, component = torch.zeros(2000).long(), torch.arange(2000) % components
    draws = generator(1)
    z = torch.randn(2000, 1, generator=draws) + 1e-3 * torch.randn(2000, d, generator=draws)
    z = z + 20 * component.unsqueeze(1) * (torch.arange(d) % 2)
    options = {"components": components, "covariance": "pca", "rank": 1, "fit": "em", "generator": generator(2)}
    fitted = fit_mixture(z, labels, **options, noise_std=noise_std)
    truth = 0.5 * math.log1p(d / noise_std**2) + math.log(components)
    # Components share a basis, which what separates them turns: two read up to 2.5 nats too high, and never 20.
    assert truth - 0.5 < fitted.leakage_bound(noise_std) < truth + 0.5 + 2 * (components - 1)


def test_amplitude_scales_the_fit_and_nothing_else(mixture, draw, generator) -> None:
    z, labels = draw(mixture(components=3, d=24, rank=3, apart=6), 1500, 1)
    for covariance in ("diag", "pca"):
        options = {"components": 3, "covariance": covariance, "rank": 3, "fit": "em"}
        one, small = (
            fit_mixture(unit * z, labels, **options, generator=generator(2), noise_std=0.05 * unit)
            for unit in (1.0, 1e-5)
        )
        torch.testing.assert_close(1e10 * small.variances, one.variances, rtol=1e-2, atol=1e-6)
        assert small.leakage_bound(5e-7) == pytest.approx(one.leakage_bound(0.05), rel=1e-3)


def test_refusals_name_diagnosis_cause_and_remedies(mixture, draw, generator) -> None:
    z, labels = torch.randn(6, 6, generator=generator()), torch.arange(6) % 3
    with pytest.raises(MixtureError, match=r"class 3 has no samples.*misses a class.*drop the class"):
        fit_mixture(z, labels, components=1, num_classes=4, generator=generator())
    with pytest.raises(MixtureError, match=r"labels below 2.*found 2.*other|different.*number of classes"):
        fit_mixture(z, labels, components=1, num_classes=2, generator=generator())
    with pytest.raises(MixtureError, match=r"no samples.*split is empty.*rerun extract_activations"):
        fit_mixture(z[:0], labels[:0], components=1, generator=generator())
    with pytest.raises(MixtureError, match=r"shape \(3, 1, 6\).*found \(3, 2, 6\).*rerun fit_mixture"):
        fit_mixture(z, labels, components=1, start=mixture(), generator=generator())
    with pytest.raises(MixtureError, match=r"rank at most 6.*found 7.*smaller rank"):
        fit_mixture(z, labels, components=1, covariance="pca", rank=7, generator=generator())
    with pytest.raises(MixtureError, match=r"overflow.*sigmoid"):
        fit_mixture(z * 1e25, labels, components=1, generator=generator())
    z[0, 0] = math.nan
    with pytest.raises(MixtureError, match=r"not finite.*diverged.*learning rate"):
        fit_mixture(z, labels, components=1, generator=generator())


def test_a_source_that_cannot_be_read_twice_is_refused(generator) -> None:
    once = iter([(torch.randn(8, 2), torch.arange(8) % 2)])
    with pytest.raises(MixtureError, match=r"8 samples in one pass and 0 in another.*every call"):
        fit_mixture_stream(MixtureFit(components=1), lambda: once, generator())
