"""Where EM starts: k-means of each class's leading principal components, the best of several runs."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.mixture.em import accumulate, hard
from cem.mixture.kmeans import kmeans, seed_means
from cem.mixture.samples import Samples
from cem.mixture.subspace import leading_directions, project

_LEADING, _ROUNDS = 16, 2  # principal components looked at, and passes to find them
_MOVING = 0.01  # a class is done when less of its samples than this change their component
_TIE = 1e-3  # runs that differ by less are equally good
_RUNS, _FEW = 6, 200  # runs of k-means to choose from, on so many samples a component


def rough_components(
    samples: Samples, components: int, means: Float[Tensor, "cls k d"] | None, generator: torch.Generator
) -> Int[Tensor, " n"]:
    """The component of each sample, from the given centres or else from several seedings.

    The directions in which components differ are among the leading ones, and most of the noise is not: k-means there
    takes a small part of the time and errs less. Source: Ding & He 2004; Vempala & Wang 2004.
    """
    classes, dimensions = samples.centre.shape
    many = max(_LEADING, components)
    if 2 * many < dimensions:
        basis = leading_directions(samples, many, _ROUNDS, generator)
    else:
        basis = torch.eye(dimensions, device=samples.centre.device, dtype=samples.centre.dtype).repeat(classes, 1, 1)
    leading = project(samples, basis)
    low = Samples(lambda: [(leading, samples.labels)], classes, in_memory=True)
    found = means @ basis if means is not None else _best_run(low, leading, components, generator)
    return kmeans(low, found - low.centre.unsqueeze(1), moving=_MOVING)


def _best_run(
    samples: Samples, points: Float[Tensor, "n many"], components: int, generator: torch.Generator
) -> Float[Tensor, "cls k many"]:
    """Centres, for each class those of the run with the least squared distances; the runs are classes of their own."""
    classes = len(samples.counts)
    few = samples.draw(samples.counts.clamp_max(_FEW * components), generator)
    labels = samples.labels[few] + classes * torch.arange(_RUNS, device=few.device).unsqueeze(1)
    repeated = points[few].repeat(_RUNS, 1)
    runs = Samples(lambda: [(repeated, labels.flatten())], _RUNS * classes, in_memory=True)
    component = kmeans(runs, seed_means(runs, components, generator), moving=_MOVING)
    moments = accumulate(runs, components, hard(component, components))
    distance = (moments.mass.unsqueeze(-1) * moments.variances).sum((1, 2)).view(_RUNS, classes)
    centres = moments.means.to(points.dtype) + runs.centre.unsqueeze(1)
    # The first of the equally good: rounding must not choose between two orders of the same components.
    good = distance <= (1 + _TIE) * distance.min(0).values
    first = (good * torch.arange(_RUNS, 0, -1, device=few.device).unsqueeze(1)).argmax(0)
    best = first * classes + torch.arange(classes, device=few.device)
    return centres[best]
