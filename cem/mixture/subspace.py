"""Leading directions of each class, found without a d × d matrix."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem.mixture.model import ClassMixture
from cem.mixture.samples import Samples

_SPARE = 4  # more directions than are kept, so that the last ones that are kept converge faster


def leading_directions(
    samples: Samples, many: int, rounds: int, generator: torch.Generator, within: ClassMixture | None = None
) -> Float[Tensor, "cls d many"]:
    """Leading eigenvectors of each class's covariance S, orthonormal, by subspace iteration.

    S U = (1/n) Xᵀ(XU); with `within`, a mixture whose means are those of its responsibilities, S is the pooled
    covariance within components: less Σ_k π_k μ_k (μ_kᵀU). Source: Halko, Martinsson & Tropp 2011, algorithm 4.4.
    """
    samples.hold()
    classes, dimensions = samples.centre.shape
    size = (classes, dimensions, min(dimensions, many + _SPARE))
    start = torch.randn(size, generator=generator, device=samples.centre.device, dtype=samples.centre.dtype)
    basis = torch.linalg.qr(start).Q
    for _ in range(rounds):
        image = basis.new_zeros(classes, basis.shape[2], dimensions, dtype=torch.float64)
        for group in samples.groups():
            # The short side on the left, as in EM.
            along = torch.bmm(basis[group.cls].transpose(1, 2), group.points.transpose(1, 2))
            image.index_add_(0, group.cls, torch.bmm(along * group.present.unsqueeze(1), group.points).double())
        image = image.transpose(1, 2) / samples.counts[:, None, None]
        if within is not None:
            image -= within.means.transpose(1, 2) @ (within.weights.unsqueeze(-1) * (within.means @ basis))
        # QR orders by size only near the end; the eigenvectors of UᵀSU do at once.
        turned = torch.linalg.eigh(basis.double().transpose(1, 2) @ image).eigenvectors.flip(-1)
        basis = torch.linalg.qr(image @ turned).Q.to(start.dtype)
    kept: Tensor = basis[..., :many].contiguous()
    return kept


def project(samples: Samples, basis: Float[Tensor, "cls d many"]) -> Float[Tensor, "n many"]:
    """The centred samples along the directions of their class."""
    found = samples.centre.new_empty(len(samples) + 1, basis.shape[2])
    for group in samples.groups():
        found[group.rows] = torch.bmm(group.points, basis[group.cls])
    return found[:-1]
