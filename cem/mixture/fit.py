"""Entry points: fit a mixture to tensors, or to chunks of data larger than memory."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.config import MixtureFit
from cem.mixture.choose import CANDIDATES, choose
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
    with torch.no_grad():
        samples = Samples(lambda: [(smashed, labels)], num_classes, in_memory=True)
        return fit_samples(samples, settings, generator, start, noise_std)


def fit_mixture_stream(
    chunks: Chunks,
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
    """`fit_mixture` for data larger than memory: the same fit, up to rounding, however the data are cut into chunks.

    chunks: gives all (smashed [n, d], labels [n]) anew at each call, in one order; called some ten to a hundred times.
    A sample's label and a few numbers are kept in memory. Raises MixtureError as `fit_mixture`, and when two passes
    differ in length.
    """
    settings = MixtureFit(components=components, covariance=covariance, rank=rank, fit=fit)
    with torch.no_grad():
        return fit_samples(Samples(chunks, num_classes), settings, generator, start, noise_std)


def choose_components(
    smashed: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    *,
    criterion: Literal["held_out", "bic"] = "held_out",
    candidates: Sequence[int] = CANDIDATES,
    covariance: Covariance = "diag",
    rank: int = 8,
    fit: Fit = "em",
    generator: torch.Generator,
) -> int:
    """The number of components, one for all classes, with the best score.

    held_out: log-likelihood of a fifth of each class under a fit to the rest. bic: Bayes' information criterion.
    Raises MixtureError when a class has too few samples for every candidate.
    """
    samples = Samples(lambda: [(smashed, labels)], in_memory=True)
    settings = MixtureFit(covariance=covariance, rank=rank, fit=fit)
    with torch.no_grad():
        return choose(samples, settings, generator, criterion=criterion, candidates=candidates)


def fit_samples(
    samples: Samples,
    settings: MixtureFit,
    generator: torch.Generator,
    start: ClassMixture | None = None,
    noise_std: float = 0.0,
) -> ClassMixture:
    """`fit_mixture` for samples that are read already; without gradients, which the caller turns off."""
    components = settings.components
    if components == "auto":
        components = choose(samples, settings, generator) if start is None else start.weights.shape[1]
    return estimate(samples, settings, components, generator, start, noise_std)
