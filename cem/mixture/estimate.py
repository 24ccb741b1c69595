"""The fit of a mixture with a given number of components."""

from dataclasses import replace

import torch

from cem.config import MixtureFit
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
) -> ClassMixture:
    """Fit a mixture of `components` to each class. Raises MixtureError; see `fit_mixture`."""
    _check(samples, settings, components, start)
    centre = samples.centre.unsqueeze(1)
    means = None if start is None else start.means - centre
    shape = "spherical" if settings.covariance == "spherical" else "diag"
    if settings.fit == "em":
        mixture = em(samples, rough_mixture(samples, components, shape, means, generator), shape)
    else:
        component = kmeans(samples, means if means is not None else seed_means(samples, components, generator))
        share = hard(component, components)
        mixture = from_moments(accumulate(samples, components, share), shape, samples.class_prior)
    _check_result(mixture)
    if settings.covariance == "pca":
        basis = leading_directions(samples, settings.rank, _BASIS_ROUNDS, generator, mixture)
        if settings.fit == "em":
            mixture = em_with_basis(samples, mixture, basis)
        else:
            mixture = with_basis(accumulate(samples, components, share, basis), basis, samples.class_prior)
        _check_result(mixture)
    return replace(mixture, means=mixture.means + centre)


def _check(samples: Samples, settings: MixtureFit, components: int, start: ClassMixture | None) -> None:
    smallest = int(samples.counts.argmin())
    if int(samples.counts[smallest]) < components:
        raise MixtureError(
            f"class {smallest} has {int(samples.counts[smallest])} samples for {components} components, so no mixture "
            "can be fitted. Use fewer components, more private images, or drop the class."
        )
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
