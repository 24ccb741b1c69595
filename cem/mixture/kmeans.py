"""Hard k-means of every class at once."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from cem.mixture.counts import components_of
from cem.mixture.samples import Samples

_MAX_ROUNDS = 100


def seed_means(samples: Samples, components: int, generator: torch.Generator) -> Float[Tensor, "cls k d"]:
    """k-means++: each next centre is a sample drawn with probability ∝ its squared distance to the nearest one.

    Of a few draws the one that leaves the smallest total distance is kept. The draws are the samples with the largest
    keys log w − log e, e ~ Exp(1) drawn in the order of the source: the choice does not depend on its chunks.
    Source: Arthur & Vassilvitskii 2007; keys: Efraimidis & Spirakis 2006.
    """
    samples.hold()
    classes = torch.arange(len(samples.counts), device=samples.labels.device)
    nearest = torch.ones_like(samples.norms)
    centres: list[Tensor] = []
    for _ in range(components):
        # Where all samples coincide every distance is zero: any sample will do.
        keys = (nearest + torch.finfo(nearest.dtype).tiny).log() - torch.empty_like(nearest).exponential_(
            generator=generator
        ).log()
        rows = samples.largest(keys, 2 + int(math.log(components)) if centres else 1)
        points = samples.take(rows)
        distances = samples.squared_distances(points)
        if centres:
            distances = torch.minimum(distances, nearest.unsqueeze(1))
        total = distances.new_zeros(len(classes), rows.shape[1], dtype=torch.float64)
        best = total.index_add_(0, samples.labels, distances.double()).argmin(1)
        nearest = distances.gather(1, best[samples.labels].unsqueeze(1)).squeeze(1)
        centres.append(points[classes, best])
    return torch.stack(centres, 1)


def kmeans(samples: Samples, means: Float[Tensor, "cls k d"], *, moving: float = 0.0) -> Int[Tensor, " n"]:
    """Lloyd's iteration from the given centres; the component of each sample.

    A class is done when at most the share `moving` of its samples changes its component. An empty component is given
    one of the farthest samples of its class. A class too small for all components uses the first of them only (see
    `components_of`). Source: Lloyd 1982.
    """
    samples.hold()
    classes, components, _ = means.shape
    used = torch.arange(components, device=means.device) < components_of(samples.counts, components).unsqueeze(1)
    component = samples.labels.new_full((len(samples) + 1,), -1)  # the last is padding's
    going = torch.ones_like(samples.counts, dtype=torch.bool)
    for _ in range(_MAX_ROUNDS):
        previous = component[:-1].clone()
        offset, count, sums = _round(samples, means, used, going, component)
        changed = torch.bincount(samples.labels[component[:-1] != previous], minlength=classes)
        going = changed > moving * samples.counts
        if not bool(going.any()):
            break
        new = (sums / count.clamp_min(1).unsqueeze(-1)).to(means.dtype)
        means = torch.where(going[:, None, None], new, means)
        empty = (count == 0) & used & going.unsqueeze(1)
        if bool(empty.any()):
            farthest = samples.take(samples.largest(offset + samples.norms, components))
            place = (empty.cumsum(1) - 1).clamp_min(0)  # the j-th empty component takes the j-th farthest
            rows = torch.arange(classes, device=means.device).unsqueeze(1)
            means = torch.where(empty.unsqueeze(-1), farthest[rows, place], means)
    return component[:-1]


def _round(
    samples: Samples,
    means: Float[Tensor, "cls k d"],
    used: Bool[Tensor, "cls k"],
    classes: Bool[Tensor, " cls"],
    component: Int[Tensor, " rows"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "cls k"], Float[Tensor, "cls k d"]]:
    """Write the nearest component of each sample of some classes into `component`.

    Returned: squared distance to it less the sample's squared norm; each component's count and sum.
    """
    square = means.square().sum(-1).unsqueeze(1)
    offset = means.new_zeros(len(samples) + 1)
    count, sums = torch.zeros_like(means[..., 0], dtype=torch.float64), torch.zeros_like(means, dtype=torch.float64)
    for group in samples.groups(classes):
        distances = torch.baddbmm(square[group.cls], group.points, means[group.cls].transpose(1, 2), alpha=-2)
        distances = distances.masked_fill(~used[group.cls].unsqueeze(1), math.inf)
        offset[group.rows], nearest = distances.min(-1)
        component[group.rows] = nearest
        assigned = one_hot(nearest, means.shape[1]).to(means.dtype) * group.present.unsqueeze(-1)
        count.index_add_(0, group.cls, assigned.sum(1).double())
        sums.index_add_(0, group.cls, torch.bmm(assigned.transpose(1, 2), group.points).double())
    return offset[:-1], count, sums
