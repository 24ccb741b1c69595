"""One training on several processes, one a GPU: every process has the same numbers, and makes a part of each batch.

A tensor is *whole*, the same on every process, or a *part*: the rows of this process. Encoder and classifier see parts.
All else (noise, penalties, surrogate, losses) sees the whole batch on every process, as a single process does, and so
does every reading. Gradients of parameters that saw parts are summed. Nothing of a training depends on the number of
processes but its speed, and how sums are rounded.
"""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from cem import CemError
from cem.models.dropout import Dropout


class RankError(CemError):
    """Processes that cannot start together, or one that failed."""


class World:
    """The processes of a training. This one is the only one: parts are whole, and nothing is to be summed."""

    rank, size = 0, 1

    def part(self, whole: Tensor) -> Tensor:
        """This process's rows of a batch. Its gradient is collected from all processes."""
        return whole

    def whole(self, part: Tensor) -> Tensor:
        """The batch, of the parts of all processes. This process's rows of its gradient go on."""
        return part

    def sum_gradients(self, *modules: nn.Module) -> None:
        """Complete the gradients of modules that saw a part."""

    def agree(self, flag: bool) -> bool:
        """What the first process says."""
        return flag

    def check_batch(self, batch_size: int) -> None:
        """Raise RankError when a batch has fewer images than there are processes."""

    def require_same(self, tensors: Mapping[str, Tensor]) -> None:
        """Raise RankError when these tensors are not the same on every process."""

    def share(self, module: nn.Module) -> None:
        """Let the layers of a module that is to see parts do as they would with the whole batch.

        These are batch normalisations, not the module itself, and cem's own dropout.
        """


class Ranks(World):
    """One of several processes, in torch's default process group, which sums tensors on the CPU and on `device`."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.device = device
        self.total = 0  # rows of the present batch

    @property
    def rows(self) -> slice:
        """Those of the present batch that are this process's; the first processes have one more where it is uneven."""
        each, more = divmod(self.total, self.size)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def part(self, whole: Tensor) -> Tensor:
        self.total = len(whole)
        part: Tensor = _Part.apply(whole, self)
        return part

    def whole(self, part: Tensor) -> Tensor:
        whole: Tensor = _Whole.apply(part, self)
        return whole

    def collect(self, part: Tensor) -> Tensor:
        """The parts of all processes, in their order."""
        whole = part.new_zeros(self.total, *part.shape[1:])
        whole[self.rows] = part
        dist.all_reduce(whole)
        return whole

    def rand(self, size: torch.Size, *, generator: torch.Generator, device: torch.device) -> Tensor:
        """Uniform numbers for a part: its rows of what is drawn for the whole batch."""
        return torch.rand((self.total, *size[1:]), generator=generator, device=device)[self.rows]

    def sum_gradients(self, *modules: nn.Module) -> None:
        parameters = [parameter for module in modules for parameter in module.parameters()]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        for gradient, summed in zip(gradients, torch.split(together, [one.numel() for one in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def agree(self, flag: bool) -> bool:
        said = torch.tensor(int(flag))  # on the CPU: a GPU is not waited for
        dist.broadcast(said, 0)
        return bool(said)

    def check_batch(self, batch_size: int) -> None:
        if batch_size < self.size:
            raise RankError(
                f"expected at least one image a process in every batch, found {self.size} processes and batches of "
                f"{batch_size}. Ask for fewer GPUs, or for a larger batch_size."
            )

    def require_same(self, tensors: Mapping[str, Tensor]) -> None:
        sums = torch.stack([tensor.double().sum().to(self.device) for tensor in tensors.values()])
        first = sums.clone()
        dist.broadcast(first, 0)
        apart = (sums != first).to(torch.int32)
        dist.all_reduce(apart)
        names = [name for name, count in zip(tensors, apart.tolist(), strict=True) if count]
        if names:
            raise RankError(
                f"expected the same state on all {self.size} processes, found other numbers in {', '.join(names[:3])}"
                f"{' …' if names[3:] else ''}. Are the GPUs of one kind? Run again on such, or on one GPU."
            )

    def share(self, module: nn.Module) -> None:
        for part in list(module.modules()):
            if isinstance(part, Dropout):
                part.rand = self.rand
            for name, child in part.named_children():
                if isinstance(child, nn.modules.batchnorm._BatchNorm):
                    part.register_module(name, SharedBatchNorm(child, self))


class _Part(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, whole: Tensor, world: Ranks) -> Tensor:
        ctx.world = world
        return whole[world.rows].clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.world.collect(gradients[0]), None


class _Whole(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, world: Ranks) -> Tensor:
        ctx.rows = world.rows
        return world.collect(part)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0][ctx.rows], None


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """A batch normalisation of parts, with the mean and variance of whole batches in training.

    It has the parameters and buffers of the one that it stands for, under the same names.
    """

    def __init__(self, former: nn.modules.batchnorm._BatchNorm, world: Ranks) -> None:
        super().__init__(former.num_features, former.eps, former.momentum, former.affine, former.track_running_stats)
        self._parameters, self._buffers = former._parameters, former._buffers
        self.world = world

    def forward(self, x: Float[Tensor, "batch channel *place"]) -> Float[Tensor, "batch channel *place"]:
        if not self.training:
            plain: Tensor = super().forward(x)
            return plain
        normal: Tensor
        normal, mean, variance, count = _Normalised.apply(x, self.weight, self.bias, self.eps)
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
            rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), rate)
        return normal

    def _check_input_dim(self, input: Tensor) -> None:
        """Any map will do: the one it stands for had to take it."""


class _Normalised(torch.autograd.Function):
    """(x − mean) / √(variance + eps) · weight + bias with statistics of all processes' x; and these, and their count.

    Statistics are in float32, or in the precision of x where that is higher.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        places = [axis for axis in range(x.ndim) if axis != 1]
        wide = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        # One sum over the processes for the mean, one for the variance about it: no large squares that cancel.
        count = wide.new_full((1,), x.numel() / x.shape[1])
        sums = torch.cat([wide.sum(places), count])
        dist.all_reduce(sums)
        mean, count = sums[:-1] / sums[-1], sums[-1]
        variance = (wide - _wide(mean, x)).square().sum(places)
        dist.all_reduce(variance)
        variance = variance / count
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(variance + eps), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return nn.functional.batch_norm(x, mean, variance, weight, bias, eps=eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale, count = ctx.saved_tensors
        places = [axis for axis in range(x.ndim) if axis != 1]
        gradient = gradients[0].to(mean.dtype)
        normal = (x.to(mean.dtype) - _wide(mean, x)) * _wide(scale, x)
        of_bias, of_weight = gradient.sum(places), (gradient * normal).sum(places)
        sums = torch.stack([of_bias, of_weight])
        dist.all_reduce(sums)
        along, turned = (_wide(one, x) for one in sums / count)
        factor = scale if weight is None else scale * weight
        found = (gradient - along - normal * turned) * _wide(factor, x)
        if weight is None:
            return found.to(x.dtype), None, None, None
        return found.to(x.dtype), of_weight.to(weight.dtype), of_bias.to(weight.dtype), None


def _wide(of_channels: Tensor, like: Tensor) -> Tensor:
    """Numbers of channels, to be broadcast over a batch."""
    return of_channels.view(1, -1, *[1] * (like.ndim - 2))
