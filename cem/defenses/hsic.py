"""Dependence of smashed data on images and on labels, as HSIC measures it."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from cem.config import Hsic
from cem.defenses.base import Mechanism, Place
from cem.types import Images, Labels, Smashed


class HsicDefense(Mechanism):
    """`weight_x` · HSIC(x, ẑ) − `weight_y` · HSIC(ẑ, y). It does not act on z.

    Source: docs/theory.md, "The defences".
    """

    def __init__(self, cfg: Hsic) -> None:
        self.cfg = cfg
        self._num_classes = 0

    def begin_training(
        self, place: Place, generator: torch.Generator, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._num_classes = place.num_classes

    def penalty(self, images: Images, clean: Smashed, labels: Labels) -> Float[Tensor, ""]:
        targets = one_hot(labels, self._num_classes).to(clean.dtype)
        x, z, y = (gaussian_kernel(points.flatten(1), self.cfg.bandwidth) for points in (images, clean, targets))
        return self.cfg.weight_x * hsic(x, z) - self.cfg.weight_y * hsic(z, y)


def gaussian_kernel(points: Float[Tensor, "n d"], bandwidth: float) -> Float[Tensor, "n n"]:
    """exp(−‖a − b‖² / (2 · bandwidth² · d)) of each two points.

    The width grows with √d, so that one setting serves images, ẑ and labels. Source: Ma, Lewis & Kleijn 2020, on whose
    code BiDO's builds.
    """
    points = points - points.mean(0)
    sizes = points.square().mean(1)
    squared = sizes.unsqueeze(1) + sizes - 2 / points.shape[1] * points @ points.T
    return torch.exp(-squared / (2 * bandwidth**2))


def hsic(one: Float[Tensor, "n n"], other: Float[Tensor, "n n"]) -> Float[Tensor, ""]:
    """tr(KHLH)/(n − 1)², H = I − 1/n: the biased estimate from the kernel matrices K and L; 0 of a single point.

    Source: Gretton, Bousquet, Smola & Schölkopf 2005, definition 2.
    """
    centred = one - one.mean(0, keepdim=True)
    centred = centred - centred.mean(1, keepdim=True)
    return (centred * other.T).sum() / max(len(one) - 1, 1) ** 2
