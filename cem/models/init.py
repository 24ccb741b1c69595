"""Initial weights from one generator: the same seed gives the same model, and torch's global one is not used."""

import math
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn
from torch.nn import init

Net = TypeVar("Net", bound=nn.Module)


@runtime_checkable
class DrawsItself(Protocol):
    """A module that knows how its parameters start, those of its parts included."""

    def draw(self, generator: torch.Generator) -> None:
        """First values of every parameter and buffer, which are on the generator's device."""


def initialise(module: nn.Module, generator: torch.Generator, client: bool = False) -> None:
    """Draw every parameter, in the order of the modules, and reset normalisations.

    Convolutions and linear layers get PyTorch's default distribution, U(±1/√fan_in) for weight and bias; with `client`
    they get Xavier-uniform weights and zero biases, as the published encoder has (docs/theory.md, "The split model").
    A module of another kind says by a method `draw(generator)` how it starts (see `DrawsItself`). The parameters must
    be on the generator's device.

    Raises TypeError for any other kind of module that owns parameters.
    """
    drawn: tuple[str, ...] = ()  # whose parts are not looked at
    for name, part in module.named_modules():
        if name.startswith(drawn):
            continue
        match part:
            case DrawsItself():
                part.draw(generator)
                drawn = (*drawn, f"{name}." if name else "")
            case nn.Conv2d() | nn.ConvTranspose2d() | nn.Linear():
                _initialise_weights(part, generator, client)
            case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.LayerNorm():
                part.reset_parameters()
            case _ if next(part.parameters(recurse=False), None) is not None:
                raise TypeError(
                    f"{name}: expected a convolution, linear layer, batch or layer normalisation, or a module "
                    f"with a method draw(generator); found {type(part).__name__}. Say there, or "
                    "in cem/models/init.py, how its parameters start."
                )


def allocate(module: nn.Module, device: torch.device | str) -> None:
    """Give a module that was made on "meta" memory for its parameters and buffers, filled with zeros.

    Its `to_empty` imports torch's compiler for that, half a second of every job, and leaves any values: buffers may be
    indices, which must be in their range where the module is only asked for its shape.
    """
    module._apply(lambda one: torch.zeros(one.shape, dtype=one.dtype, device=device))  # type: ignore[no-untyped-call]


def placed(module: Net, device: torch.device) -> Net:
    """Moved to the device; on a CPU with weights laid out channels last, as what its layers give then is, too.

    That halves the time of small convolutions on large maps, as decoders have. Sums are rounded in another order.
    """
    module.to(device)
    return module.to(memory_format=torch.channels_last) if device.type == "cpu" else module


def _initialise_weights(
    part: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, generator: torch.Generator, client: bool
) -> None:
    if client:
        init.xavier_uniform_(part.weight, generator=generator)
        if part.bias is not None:
            init.zeros_(part.bias)
        return
    init.kaiming_uniform_(part.weight, a=math.sqrt(5), generator=generator)
    if part.bias is not None:
        # PyTorch takes the second axis as inputs, for transposed convolutions too.
        bound = 1 / math.sqrt(part.weight[0].numel())
        init.uniform_(part.bias, -bound, bound, generator=generator)
