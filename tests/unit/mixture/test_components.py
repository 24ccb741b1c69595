import pytest
import torch

from cem.mixture import MixtureError, choose_components, fit_mixture


@pytest.mark.parametrize("criterion", ["held_out", "bic"])
@pytest.mark.parametrize("true_number", [1, 3, 5])
def test_the_number_of_separated_clusters_is_found(mixture, draw, generator, criterion, true_number) -> None:
    for seed in range(3):
        z, labels = draw(mixture(components=true_number, d=10, apart=14, seed=seed), 2400, seed)
        assert choose_components(z, labels, criterion=criterion, generator=generator(seed)) == true_number


def test_spheres_need_several_to_fill_a_cluster_that_is_not_round(mixture, draw, generator) -> None:
    z, labels = draw(mixture(components=3, d=10, apart=25, rank=2), 2400, 1)
    assert choose_components(z, labels, covariance="spherical", generator=generator(1)) > 3


def test_auto_refits_on_all_samples(mixture, draw, generator) -> None:
    true = mixture(components=3, apart=20)
    z, labels = draw(true, 1500, 1)
    fitted = fit_mixture(z, labels, components="auto", fit="em", generator=generator())
    assert fitted.weights.shape == (3, 3)
    torch.testing.assert_close((fitted.weights.unsqueeze(-1) * fitted.means).sum(1)[0], z[labels == 0].mean(0))
    warm = fit_mixture(z, labels, components="auto", start=mixture(components=2), generator=generator())
    assert warm.weights.shape == (3, 2)  # the start's number


def test_small_classes_limit_the_candidates(generator) -> None:
    z, labels = torch.randn(8, 3, generator=generator()), torch.arange(8) % 2
    assert choose_components(z, labels, generator=generator()) == 1  # three are fitted, and a component needs two
    with pytest.raises(MixtureError, match=r"\[5, 6\] can be tried.*3 samples.*more private images"):
        choose_components(z, labels, candidates=[5, 6], generator=generator())
