"""Distance correlation between images and smashed data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import NoPeek
from cem.defenses.base import Mechanism
from cem.types import Images, Labels, Smashed

_TINY = 1e-9  # keeps the roots differentiable at zero


@dataclass(frozen=True)
class NoPeekDefense(Mechanism):
    """`weight` times the distance correlation between images and ẑ. It does not act on z."""

    cfg: NoPeek

    def penalty(self, images: Images, clean: Smashed, labels: Labels) -> Float[Tensor, ""]:
        return self.cfg.weight * distance_correlation(images, clean)


def distance_correlation(images: Images, clean: Smashed) -> Float[Tensor, ""]:
    """Distance correlation of the batch, in [0, 1]; 0 only when the two are independent.

    The square root of dCov²(x, ẑ) / √(dVar²(x) dVar²(ẑ)), from double-centred Euclidean distance matrices.
    Source: Székely, Rizzo & Bakirov 2007, eqs. 2.8 to 2.10; as a defence Vepakomma et al. 2020 (NoPeek).
    """
    a, b = _centred_distances(images.flatten(1)), _centred_distances(clean.flatten(1))
    covariance, variance = (a * b).mean(), (a * a).mean() * (b * b).mean()
    return torch.sqrt(covariance.clamp_min(0) / torch.sqrt(variance + _TINY) + _TINY)


def _centred_distances(points: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    squared = (points.unsqueeze(0) - points.unsqueeze(1)).square().sum(-1)
    distances = torch.sqrt(squared + _TINY)
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()
