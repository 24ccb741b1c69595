"""Ways in: fit a mixture to tensors, by words or by settings, or to chunks of data larger than memory."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.config import MixtureFit
from cem.mixture.choose import choose
from cem.mixture.estimate import estimate
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Chunks, Samples

Covariance = Literal["spherical", "diag", "pca"]
Fit = Literal["kmeans", "em"]


def fit_mixture(
    smashed: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    components: int | Literal["auto"] = 3,
    covariance: Covariance = "diag",
    rank: int = 8,
    fit: Fit = "kmeans",
    generator: torch.Generator,
    num_classes: int | None = None,
    start: ClassMixture | None = None,
) -> ClassMixture:
    """Fit a mixture to each class, all classes at once.

    components: of each class; auto: the number with the best held-out likelihood, or that of `start`.
    rank: of a pca covariance. fit: hard k-means (k-means++ or `start`, empty components re-seeded from the farthest
    samples), or EM from there. generator: on the device of `smashed`.
    Raises MixtureError when a class is empty or has fewer samples than components, when values are not finite, and when
    `start` has another shape.
    """
    settings = MixtureFit(components=components, covariance=covariance, rank=rank, fit=fit)
    return fit_mixture_as(settings, smashed, labels, generator, num_classes=num_classes, start=start)


@torch.no_grad()
def fit_mixture_as(
    settings: MixtureFit,
    smashed: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    generator: torch.Generator,
    *,
    num_classes: int | None = None,
    start: ClassMixture | None = None,
) -> ClassMixture:
    """`fit_mixture` as settings say."""
    return _fit(Samples(lambda: [(smashed, labels)], num_classes, in_memory=True), settings, generator, start)


@torch.no_grad()
def fit_mixture_stream(settings: MixtureFit, chunks: Chunks, generator: torch.Generator) -> ClassMixture:
    """`fit_mixture_as` for data larger than memory: the same fit, up to rounding, however the data are cut into chunks.

    chunks: gives all (smashed [n, d], labels [n]) again at each call, in one order; called some ten to a hundred times.
    A sample's label and a few numbers are kept in memory. Raises MixtureError as `fit_mixture`, and when two passes
    differ in length.
    """
    return _fit(Samples(chunks), settings, generator, None)


def _fit(
    samples: Samples, settings: MixtureFit, generator: torch.Generator, start: ClassMixture | None
) -> ClassMixture:
    components = settings.components
    if components == "auto":
        found = choose(samples, settings, generator) if start is None else start.weights.shape[1]
        components = found
    return estimate(samples, settings, components, generator, start)
