"""The fit of a mixture with a given number of components."""

from dataclasses import replace

import torch

from cem.config import MixtureFit
from cem.mixture.counts import fewer_note
from cem.mixture.em import accumulate, em, from_moments, hard
from cem.mixture.kmeans import kmeans, seed_means
from cem.mixture.model import ClassMixture
from cem.mixture.pca import em_with_basis, with_basis
from cem.mixture.samples import MixtureError, Samples
from cem.mixture.start import rough_mixture
from cem.mixture.subspace import leading_directions

_BASIS_ROUNDS = 6  # passes to find the basis of a pca covariance


def estimate(
    samples: Samples,
    settings: MixtureFit,
    components: int,
    generator: torch.Generator,
    start: ClassMixture | None = None,
    noise_std: float = 0.0,
) -> ClassMixture:
    """Fit a mixture of `components` to each class. Raises MixtureError; see `fit_mixture`."""
    _check(samples, settings, components, start)
    centre, noise_variance = samples.centre.unsqueeze(1), noise_std**2
    notes = fewer_note(samples.counts, components)
    means = None if start is None else start.means - centre
    shape = "spherical" if settings.covariance == "spherical" else "diag"
    if settings.fit == "em":
        rough = rough_mixture(samples, components, shape, means, generator, noise_variance)
        mixture = em(samples, rough, shape, noise_variance)
    else:
        component = kmeans(samples, means if means is not None else seed_means(samples, components, generator))
        share = hard(component, components)
        mixture = from_moments(accumulate(samples, components, share), shape, samples.class_prior)
    _check_result(mixture)
    if settings.covariance == "pca":
        basis = leading_directions(samples, settings.rank, _BASIS_ROUNDS, generator, mixture)
        if settings.fit == "em":
            mixture = em_with_basis(samples, mixture, basis, noise_variance)
        else:
            moments = accumulate(samples, components, share, basis)
            mixture = with_basis(moments, basis, samples.class_prior, noise_variance)
        _check_result(mixture)
        notes += _empty_note(mixture)
    return replace(mixture, means=mixture.means + centre, notes=notes)


def _empty_note(mixture: ClassMixture) -> tuple[str, ...]:
    """What a result says of the classes that the basis is of no use to; empty where there are none."""
    assert mixture.spread is not None
    empty = (mixture.spread == 0).flatten(1).all(1).nonzero().flatten().tolist()
    if not empty:
        return ()
    listed = ", ".join(map(str, empty[:10])) + (", …" if len(empty) > 10 else "")
    return (f"the low-rank part is empty, as if the covariance were diag, in {len(empty)} classes: {listed}",)


def _check(samples: Samples, settings: MixtureFit, components: int, start: ClassMixture | None) -> None:
    classes, dimensions = samples.centre.shape
    if settings.covariance == "pca" and settings.rank > dimensions:
        raise MixtureError(
            f"expected rank at most {dimensions}, the smashed data's dimensions, found {settings.rank}: there are no "
            "more directions. Use a smaller rank, covariance diag, or a later cut layer with wider smashed data."
        )
    expected = (classes, components, dimensions)
    if start is not None and tuple(start.means.shape) != expected:
        raise MixtureError(
            f"expected a start with means of shape {expected} (class, component, dimension), found "
            f"{tuple(start.means.shape)}: it is of another model or other settings. Delete it and rerun fit_mixture, "
            "use its number of components, or fit without a start."
        )


def _check_result(mixture: ClassMixture) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in mixture.tensors().values()):
        raise MixtureError(
            "the fitted mixture holds values that are not finite: squares of the smashed data overflow their type. "
            "Bound the encoder's output (bottleneck with a sigmoid), lower its learning rate, or give float64 data."
        )
