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
    noise_std: float = 0.0,
) -> ClassMixture:
    """Fit a mixture to each class, all classes at once.

    components: of each class; auto: the number with the best held-out likelihood, or that of `start`.
    rank: of a pca covariance. fit: hard k-means (k-means++ or `start`, empty components re-seeded from the farthest
    samples), or EM from there. generator: on the device of `smashed`. noise_std: σ of the noise that the mixture will
    be used at: components, and what a low-rank part is worth, are those of ẑ + ε.
    A class has a component for every two of its samples at most; `notes` of the result name those with fewer than
    `components`. Raises MixtureError when a class is empty, when values are not finite, and when `start` has another
    shape.
    """
    settings = MixtureFit(components=components, covariance=covariance, rank=rank, fit=fit)
    return fit_mixture_as(
        settings, smashed, labels, generator, num_classes=num_classes, start=start, noise_std=noise_std
    )


@torch.no_grad()
def fit_mixture_as(
    settings: MixtureFit,
    smashed: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    generator: torch.Generator,
    *,
    num_classes: int | None = None,
    start: ClassMixture | None = None,
    noise_std: float = 0.0,
) -> ClassMixture:
    """`fit_mixture` as settings say."""
    samples = Samples(lambda: [(smashed, labels)], num_classes, in_memory=True)
    return fit_samples(samples, settings, generator, start, noise_std)


@torch.no_grad()
def fit_mixture_stream(
    settings: MixtureFit, chunks: Chunks, generator: torch.Generator, noise_std: float = 0.0
) -> ClassMixture:
    """`fit_mixture_as` for data larger than memory: the same fit, up to rounding, however the data are cut into chunks.

    chunks: gives all (smashed [n, d], labels [n]) again at each call, in one order; called some ten to a hundred times.
    A sample's label and a few numbers are kept in memory. Raises MixtureError as `fit_mixture`, and when two passes
    differ in length.
    """
    return fit_samples(Samples(chunks), settings, generator, None, noise_std)


def fit_samples(
    samples: Samples,
    settings: MixtureFit,
    generator: torch.Generator,
    start: ClassMixture | None = None,
    noise_std: float = 0.0,
) -> ClassMixture:
    """`fit_mixture_as` for samples that are read already; without gradients, which the caller turns off."""
    components = settings.components
    if components == "auto":
        components = choose(samples, settings, generator) if start is None else start.weights.shape[1]
    return estimate(samples, settings, components, generator, start, noise_std)
