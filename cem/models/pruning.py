"""Pruning of an encoder: whole channels leave it, with all parameters that belong to them."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Select = Callable[[Tensor], Tensor]  # what is left of a tensor that has a parameter's shape
Pruned = list[tuple[nn.Parameter, nn.Parameter, Select]]  # as it was, as it is, and how anything of its shape follows


def prune(encoder: nn.Sequential, fraction: float) -> Pruned:
    """Leave out `fraction` of the channels of every convolution but the last, which gives z; in place.

    Those with the smallest L1 norm of their filter go, rounded up in number; the order of the others stays, and so
    does what the network knows of them. How many stay depends on shapes alone, so that an encoder with any weights,
    or without (meta), is brought to the shape of a pruned one. Raises TypeError for an encoder that is no chain of
    convolutions and batch normalisations. Source: Li et al. 2017 (arXiv 1608.08710) for the norm.
    """
    convolutions = [part for part in encoder if isinstance(part, nn.Conv2d)]
    replaced: Pruned = []
    left = torch.arange(convolutions[0].in_channels, device=convolutions[0].weight.device)
    for part in encoder:
        if isinstance(part, nn.Conv2d):
            rows = _largest(part, 0.0 if part is convolutions[-1] else fraction)
            _replace(part, "weight", replaced, _select(rows, left))
            _replace(part, "bias", replaced, _select(rows))
            part.out_channels, part.in_channels = len(rows), len(left)
            left = rows
        elif isinstance(part, nn.modules.batchnorm._BatchNorm):
            for name in ("weight", "bias"):
                _replace(part, name, replaced, _select(left))
            for name in ("running_mean", "running_var"):
                setattr(part, name, _select(left)(getattr(part, name)))
            part.num_features = len(left)
        elif next(part.parameters(), None) is not None:
            raise TypeError(
                f"expected an encoder of convolutions and batch normalisations one after the other, found "
                f"{type(part).__name__}: its channels cannot be pruned. Its settings must not say `prunable`"
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
