import pytest
import torch

from cem.config import MixtureFit
from cem.mixture import fit_mixture, fit_mixture_as


def chosen(z, labels, generator, **settings) -> int:
    return fit_mixture(z, labels, components="auto", generator=generator, **settings).weights.shape[1]


@pytest.mark.parametrize("true_number", [1, 3, 5])
def test_the_number_of_separated_clusters_is_found(mixture, draw, generator, true_number) -> None:
    for seed in range(3):
        z, labels = draw(mixture(components=true_number, d=10, apart=14, seed=seed), 2400, seed)
        assert chosen(z, labels, generator(seed), fit="em") == true_number


def test_spheres_need_several_to_fill_a_cluster_that_is_not_round(mixture, draw, generator) -> None:
    z, labels = draw(mixture(components=3, d=10, apart=25, rank=2), 2400, 1)
    assert chosen(z, labels, generator(1), fit="em", covariance="spherical") > 3


def test_auto_refits_on_all_samples(mixture, draw, generator) -> None:
    true = mixture(components=3, apart=20)
    z, labels = draw(true, 1500, 1)
    fitted = fit_mixture(z, labels, components="auto", fit="em", generator=generator())
    assert fitted.weights.shape == (3, 3)
    torch.testing.assert_close((fitted.weights.unsqueeze(-1) * fitted.means).sum(1)[0], z[labels == 0].mean(0))
    warm = fit_mixture(z, labels, components="auto", start=mixture(components=2), generator=generator())
    assert warm.weights.shape == (3, 2)  # the start's number


@pytest.mark.parametrize(("samples", "most"), [(2, 1), (8, 1), (12, 2)])
def test_small_classes_limit_the_candidates(generator, samples, most) -> None:
    z, labels = torch.randn(samples, 3, generator=generator()), torch.arange(samples) % 2
    assert 1 <= chosen(z, labels, generator()) <= most


@pytest.mark.parametrize("components", [2, "auto"])
def test_words_and_settings_give_the_same_fit(mixture, draw, generator, components) -> None:
    z, labels = draw(mixture(components=2), 300, 1)
    words = {"components": components, "covariance": "pca", "rank": 2, "fit": "em"}
    one = fit_mixture(z, labels, generator=generator(), **words)
    other = fit_mixture_as(MixtureFit(**words), z, labels, generator())
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
