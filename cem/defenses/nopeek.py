"""Distance correlation between images and smashed data."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import NoPeek
from cem.defenses.base import Mechanism
from cem.types import Images, Labels, Smashed

_TINY, _TINIER = 1e-9, 1e-12  # keep the roots differentiable at zero


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
    return torch.sqrt(covariance.clamp_min(0) / torch.sqrt(variance + _TINIER) + _TINY)


def _centred_distances(points: Float[Tensor, "n d"]) -> Float[Tensor, "n n"]:
    """In units of the mean distance: the statistic has no scale, and a small ẑ must not be lost beside `_TINIER`."""
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    scale = distances.detach().mean()
    distances = distances / torch.where(scale > 0, scale, 1)
    return distances - distances.mean(0, keepdim=True) - distances.mean(1, keepdim=True) + distances.mean()
