"""Gradients: how large they are, and what happens where they or a term are not finite."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cem.types import Smashed

Readings = dict[str, float]  # by names of the history's columns; what was not computed is absent


class NonFinite(NamedTuple):
    """A number that should have been finite."""

    term: str
    value: float


class NonFiniteError(ArithmeticError):
    """The objective or its gradient is not finite, for another reason than the surrogate; no weight has felt it."""

    def __init__(self, found: NonFinite) -> None:
        super().__init__(f"{found.term} is {found.value}")
        self.found = found


def watched(clean: Smashed, column: str, values: dict[str, Tensor]) -> Smashed:
    """ẑ for one term: what flows back through it is that term's gradient, whose L2 norm goes into `values`."""
    alias = clean.view_as(clean)

    def record(gradient: Tensor) -> None:
        values[column] = gradient.norm()

    alias.register_hook(record)  # type: ignore[no-untyped-call]
    return alias


def guard(alias: Smashed, finite: Bool[Tensor, ""], column: str, values: dict[str, Tensor]) -> None:
    """Let the gradient at an alias of ẑ pass where it and what `finite` speaks of are finite; else zeros go on.

    Its norm goes into `values` as it came, so that a later look at the norm tells what happened.
    """

    def replace(gradient: Tensor) -> Tensor:
        norm = values[column] = gradient.norm()
        return gradient.masked_fill(~(finite & torch.isfinite(norm)), 0.0)

    alias.register_hook(replace)  # type: ignore[no-untyped-call]


def grad_norm(*modules: nn.Module) -> Float[Tensor, ""]:
    """L2 norm of the gradient of all parameters of these modules."""
    parameters = (parameter for module in modules for parameter in module.parameters())
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    return torch.nn.utils.get_total_norm(gradients)


def read(values: dict[str, Tensor]) -> Readings:
    """The values as numbers: all at once, since each transfer waits for the device."""
    together = torch.stack([value.detach().double() for value in values.values()])
    return dict(zip(values, together.tolist(), strict=True))


def first_nonfinite(readings: Readings, names: tuple[str, ...]) -> NonFinite | None:
    """The first of these readings that is not finite; an absent one is."""
    return next((NonFinite(n, readings[n]) for n in names if not math.isfinite(readings.get(n, 0.0))), None)


def require_finite(readings: Readings, names: tuple[str, ...]) -> None:
    """Raise NonFiniteError unless all of these readings are finite or absent."""
    found = first_nonfinite(readings, names)
    if found is not None:
        raise NonFiniteError(found)


def descend(optimizer: torch.optim.Optimizer, norm: float, limit: float | None) -> float:
    """A step along the gradient, first scaled down to the norm `limit` where its norm is larger.

    Gives the factor it was scaled by, 1 where it was not.
    """
    factor = 1.0
    if limit is not None:
        # As torch's clip_grads_with_norm_, but that a factor which is a number need not be sent to the device.
        factor = (limit / (torch.tensor(norm) + 1e-6)).clamp(max=1.0).item()
        for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
            if parameter.grad is not None:
                parameter.grad.mul_(factor)
    optimizer.step()
    return factor


def clipping(party: str, factor: float, limit: float | None) -> Readings:
    """What the history says of a party's clipping; `factor`: what `descend` gave. Nothing where there is no limit.

    The factor is read of clipped batches only, so that its mean says how hard these were cut.
    """
    if limit is None:
        return {}
    cut = factor < 1.0
    return {f"{party}_clipped": float(cut)} | ({f"{party}_clip_factor": factor} if cut else {})
