"""Pruning of an encoder: whole channels leave it, with all parameters that belong to them."""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from cem.models.residual import BasicBlock

Select = Callable[[Tensor], Tensor]  # what is left of a tensor that has a parameter's shape
Pruned = list[tuple[nn.Parameter, nn.Parameter, Select]]  # as it was, as it is, and how anything of its shape follows


def prune(encoder: nn.Sequential, fraction: float) -> Pruned:
    """Leave out `fraction` of the channels of convolutions of an encoder; in place.

    The last convolution, which gives z, keeps its channels, and so do those that give what residual blocks add to. A
    block loses channels between its convolutions. Those with the smallest L1 norm of their filter go, rounded up in
    number; the order of the others stays, and so does what the network knows of them. How many stay depends on shapes
    alone, so that an encoder with any weights, or without (meta), is brought to the shape of a pruned one. Raises
    TypeError for an encoder that is, up to its last convolution, no chain of convolutions, batch normalisations and
    residual blocks. Source: Li et al. 2017 (arXiv 1608.08710) for the norm.
    """
    chain = [part for part in encoder if isinstance(part, nn.Conv2d | BasicBlock)]
    replaced: Pruned = []
    left: Tensor | None = None  # the channels that stay of what comes to a part; None: all
    before_last = True
    for part in encoder:
        before_last = before_last and part is not chain[-1]
        if isinstance(part, nn.Conv2d):
            follower = next((other for this, other in pairwise(chain) if this is part), None)
            rows = _largest(part, fraction if isinstance(follower, nn.Conv2d) else 0.0)
            columns = torch.arange(part.in_channels, device=rows.device) if left is None else left
            _replace(part, "weight", replaced, _select(rows, columns))
            _replace(part, "bias", replaced, _select(rows))
            part.out_channels, part.in_channels = len(rows), len(columns)
            left = rows
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            rows = torch.arange(part.num_features, device=next(part.buffers()).device) if left is None else left
            for name in ("weight", "bias"):
                _replace(part, name, replaced, _select(rows))
            for name in ("running_mean", "running_var"):
                setattr(part, name, _select(rows)(getattr(part, name)))
            part.num_features = len(rows)
        elif isinstance(part, BasicBlock):
            replaced += prune(part.body, fraction)
            left = None
        elif next(part.parameters(), None) is not None and before_last:  # behind it, all channels are there
            raise TypeError(
                "expected an encoder of convolutions, batch normalisations and residual blocks one after the other, "
                f"found {type(part).__name__}: its channels cannot be pruned. Its settings must not say `prunable`"
            )
    return replaced


def _largest(part: nn.Conv2d, fraction: float) -> Tensor:
    """The channels that stay, ascending."""
    norms = part.weight.detach().abs().flatten(1).sum(1)
    stay = max(1, math.floor(round((1 - fraction) * len(norms), 6)))  # round: of 10 without 0.9 one stays
    return norms.topk(stay).indices.sort().values


def _select(rows: Tensor, columns: Tensor | None = None) -> Select:
    def selected(tensor: Tensor) -> Tensor:
        found = tensor.index_select(0, rows)
        return found if columns is None else found.index_select(1, columns)

    return selected


def _replace(part: nn.Module, name: str, replaced: Pruned, select: Select) -> None:
    """Put what is selected of a parameter in its place; nothing where the layer has none of that name."""
    former = getattr(part, name)
    if former is not None:
        setattr(part, name, nn.Parameter(select(former.detach())))
        replaced.append((former, getattr(part, name), select))
