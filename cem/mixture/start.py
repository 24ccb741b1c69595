"""Where EM starts: k-means of each class's leading principal components, the best of several runs on some samples."""

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.mixture.em import accumulate, em, from_moments, hard
from cem.mixture.kmeans import kmeans, seed_means
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Samples
from cem.mixture.subspace import leading_directions, project

_FEW = 200  # samples a component: enough to tell components apart, and EM then sees all
_LEADING, _ROUNDS = 16, 4  # principal components looked at, and passes to find them
_MOVING = 0.01  # a class is done when less of its samples than this change their component
_TIE = 1e-3  # runs that differ by less are equally good
_RUNS = 6  # of k-means, to choose from


def rough_mixture(
    samples: Samples,
    components: int,
    covariance: str,
    means: Float[Tensor, "cls k d"] | None,
    generator: torch.Generator,
    noise_variance: float,
) -> ClassMixture:
    """From the given centres and all samples, or else from several seedings and some samples.

    The directions in which components differ are among the leading ones, and most of the noise is not: there k-means
    takes a small part of the time and makes fewer errors. Source: Ding & He 2004; Vempala & Wang 2004.
    """
    few = samples
    if means is None:
        few, _ = samples.split(~samples.draw(samples.counts.clamp_max(_FEW * components), generator))
    classes, dimensions = few.centre.shape
    many = max(_LEADING, components)
    if 2 * many < dimensions:
        basis = leading_directions(few, many, _ROUNDS, generator)
    else:
        basis = torch.eye(dimensions, device=few.centre.device, dtype=few.centre.dtype).repeat(classes, 1, 1)
    leading = project(few, basis)
    if means is None:
        component = _best_run(leading, few.labels, classes, components, generator)
    else:
        component = kmeans(
            Samples(lambda: [(leading, few.labels)], classes, in_memory=True), means @ basis, moving=_MOVING
        )
    mixture = from_moments(accumulate(few, components, hard(component, components)), covariance, samples.class_prior)
    if few is not samples:
        mixture = em(few, mixture, covariance, noise_variance)
    return replace(mixture, means=mixture.means + (few.centre - samples.centre).unsqueeze(1))


def _best_run(
    points: Float[Tensor, "n many"],
    labels: Int[Tensor, " n"],
    classes: int,
    components: int,
    generator: torch.Generator,
) -> Int[Tensor, " n"]:
    """For each class the components of the run with the smallest squared distances; each run has its own classes."""
    run = torch.arange(_RUNS, device=labels.device).unsqueeze(1)
    repeated, owner = points.repeat(_RUNS, 1), (labels + classes * run).flatten()
    runs = Samples(lambda: [(repeated, owner)], _RUNS * classes, in_memory=True)
    component = kmeans(runs, seed_means(runs, components, generator), moving=_MOVING)
    moments = accumulate(runs, components, hard(component, components))
    distance = (moments.mass.unsqueeze(-1) * moments.variances).sum((1, 2)).view(_RUNS, classes)
    # The first of the equally good runs: rounding must not choose between two orders of the same components.
    good = distance <= (1 + _TIE) * distance.min(0).values
    first = (good * (_RUNS - run)).argmax(0)
    return component.view(_RUNS, -1).gather(0, first[labels].unsqueeze(0)).squeeze(0)
