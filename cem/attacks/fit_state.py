"""A network's fit under way: all that the rest of it depends on, saved so that it ends with the same bits."""

import math
import time
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem.attacks.base import CurveRow
from cem.jobs.state import StateStore
from cem.storage.tensors import Stateful, subset

Readings = dict[str, Float[Tensor, ""]]  # column of the curve → a batch's value


class FitState:
    """Networks, optimizers, generators, the curve so far, the best epoch's weights, the place in the epoch.

    nets: all that learn, by name; `net` is the attacker's, whose best weights are kept. optimizers: by name. start_mse:
    held-out error of the first weights of `net`, where they are to be kept unless an epoch is better.
    order: rows of the epoch under way, shuffled; empty between epochs. step: batches of it that are done. totals: sums
    of what they read, in float64. trunk: networks, optimizers and generators as they were where a cool-down began, to
    go back to; empty elsewhere. failure: why the fit can't go on; empty: it can.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        optimizers: Mapping[str, torch.optim.Optimizer],
        generators: Mapping[str, torch.Generator],
        start_mse: float = math.inf,
    ) -> None:
        self.nets, self.optimizers, self.generators, self.start_mse = nets, optimizers, generators, start_mse
        self.full_rates = {name: one.param_groups[0]["lr"] for name, one in optimizers.items()}
        self.device = next(self.net.parameters()).device
        self.curve: list[CurveRow] = []
        self.failure = ""
        self.best = _copy(self.net.state_dict())
        self.trunk: dict[str, Tensor] = {}
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.order: Int[Tensor, " rows"] = torch.empty(0, dtype=torch.int64)
        self.step = 0
        self.totals: Readings = {}
        self._earlier, self._began = 0.0, time.perf_counter()

    @property
    def net(self) -> nn.Module:
        """The attacker's network."""
        return self.nets["net"]

    @property
    def lr(self) -> float:
        """Learning rate of `net`, now."""
        return float(self.optimizers["net"].param_groups[0]["lr"])

    @property
    def seconds(self) -> float:
        """Spent in the epoch under way, earlier attempts included."""
        return self._earlier + time.perf_counter() - self._began

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights are kept, counted from 1; 0: the first weights."""
        return min(range(len(self.curve) + 1), key=self._error_after)

    @property
    def best_mse(self) -> float:
        """Held-out error of the weights that are kept; infinite where it is not known."""
        return self._error_after(self.best_epoch)

    def _error_after(self, epoch: int) -> float:
        return self.curve[epoch - 1]["val_mse"] if epoch else self.start_mse

    def set_rate(self, part: float) -> None:
        """Learn at this part of the full rate."""
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = part * self.full_rates[name]

    def mark_trunk(self) -> None:
        """Note what to go back to."""
        self.trunk = _copy(self._learning.pack({}, {})[0])

    def return_to_trunk(self) -> None:
        """Go back to where it was marked. The curve and the best weights stay."""
        self._learning.unpack(self.trunk, {})
        self.trunk = {}  # whose tensors are now in use

    def end_batch(self, readings: Readings) -> None:
        """Count a batch, and add what it read to the epoch's sums."""
        for name, value in readings.items():
            earlier = self.totals.get(name, torch.zeros((), dtype=torch.float64, device=self.device))
            self.totals[name] = earlier + value.detach()
        self.step += 1

    def end_epoch(self, val_mse: float) -> None:
        """Add a row to the curve, and keep the weights where they are the best so far.

        Where a number is not finite the fit has failed: the row is left out, and the weights are as they were.
        """
        means = {name: total.item() / self.step for name, total in self.totals.items()}
        epoch = len(self.curve) + 1
        for name, value in {**means, "val_mse": val_mse}.items():
            if not math.isfinite(value):
                self.failure = f"{name} is {value} in epoch {epoch}: lower lr"
                return
        if val_mse < self.best_mse:
            self.best = _copy(self.net.state_dict())
        train_mse = means.pop("train_mse")
        row: CurveRow = {"epoch": epoch, "train_mse": train_mse, "val_mse": val_mse}
        self.curve.append(row | means | {"lr": self.lr, "seconds": self.seconds})
        self._begin_epoch()

    @property
    def _learning(self) -> Stateful:
        named = {f"optimizer.{name}": optimizer for name, optimizer in self.optimizers.items()}
        return Stateful(self.nets, named, self.generators)

    def save(self, store: StateStore) -> None:
        """Hand everything to where it is kept."""
        values = {"curve": self.curve, "step": self.step, "seconds": self.seconds, "failure": self.failure}
        kept: dict[str, Tensor | Mapping[str, Tensor]] = {"best": self.best, "trunk": self.trunk, "total": self.totals}
        kept["order"] = self.order
        store.save(*self._learning.pack(values, kept))

    def restore(self, store: StateStore) -> bool:
        """Go on from what was saved last, if anything was. Raises CheckpointError when it is damaged."""
        saved = store.load()
        if saved is None:
            return False
        tensors, header = saved
        self._learning.unpack(tensors, header)
        self.best = {name: tensor.to(self.device) for name, tensor in subset(tensors, "best").items()}
        self.totals = {name: tensor.to(self.device) for name, tensor in subset(tensors, "total").items()}
        self.trunk = subset(tensors, "trunk")
        self.curve, self.order, self.step = header["curve"], tensors["order"], header["step"]
        self.failure, self._earlier = header["failure"], header["seconds"]
        return True


def _copy(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}
