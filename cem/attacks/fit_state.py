"""A decoder's fit under way: all that the rest of it depends on, saved so that it ends with the same bits."""

import sys
import time

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from cem.attacks.base import CurveRow
from cem.checkpoint import optimizer_tensors, restore_optimizer, subset
from cem.config import Decoder
from cem.resume import Progress


class FitState:
    """Network, Adam, cosine schedule, generators, the curve so far, the best epoch's weights, the place in the epoch.

    order: rows of the epoch under way, shuffled; empty between epochs. step: batches of it that are done. total: sum of
    their errors, in float64. steps: batches of an epoch.
    """

    def __init__(self, cfg: Decoder, net: nn.Module, generators: dict[str, torch.Generator], steps: int) -> None:
        self.net, self.generators = net, generators
        self.device = next(net.parameters()).device
        self.optimizer = torch.optim.Adam(net.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay)
        self.schedule = CosineAnnealingLR(self.optimizer, T_max=cfg.epochs * steps, eta_min=cfg.lr / 100)
        self.curve: list[CurveRow] = []
        self.best: dict[str, Tensor] = {}
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.order: Int[Tensor, " rows"] = torch.empty(0, dtype=torch.int64)
        self.step = 0
        self.total = torch.zeros((), dtype=torch.float64, device=self.device)
        self._earlier, self._began = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Spent in the epoch under way, earlier attempts included."""
        return self._earlier + time.perf_counter() - self._began

    def descend(self, loss: Float[Tensor, ""]) -> None:
        """One step."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()
        self.total += loss.detach()
        self.step += 1

    def end_epoch(self, train_mse: float, val_mse: float) -> None:
        """Add a row to the curve, and keep the weights where they are the best so far."""
        if val_mse < min((row["val_mse"] for row in self.curve), default=float("inf")):
            self.best = {name: tensor.clone() for name, tensor in self.net.state_dict().items()}
        row: CurveRow = {"epoch": len(self.curve) + 1, "train_mse": train_mse, "val_mse": val_mse}
        self.curve.append(row | {"lr": float(self.schedule.get_last_lr()[0]), "seconds": self.seconds})
        self._begin_epoch()

    def save(self, progress: Progress) -> None:
        """Hand everything to where it is kept."""
        tensors = {f"net.{name}": tensor for name, tensor in self.net.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()}
        tensors |= {f"generator.{name}": generator.get_state() for name, generator in self.generators.items()}
        tensors |= optimizer_tensors("optimizer", self.optimizer) | {"order": self.order, "total": self.total}
        header = {"curve": self.curve, "step": self.step, "seconds": self.seconds}
        header |= {"lr": self.optimizer.param_groups[0]["lr"], "schedule": self.schedule.state_dict()}
        progress.save(tensors, header)

    def restore(self, progress: Progress) -> None:
        """Go on from what was saved last, if anything was. Raises CheckpointError when it is damaged."""
        saved = progress.load()
        if saved is None:
            return
        tensors, header = saved
        self.net.load_state_dict(subset(tensors, "net"))
        self.best = {name: tensor.to(self.device) for name, tensor in subset(tensors, "best").items()}
        for name, generator in self.generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        restore_optimizer("optimizer", self.optimizer, tensors)
        self.optimizer.param_groups[0]["lr"] = header["lr"]
        self.schedule.load_state_dict(header["schedule"])
        self.curve, self.order, self.step = header["curve"], tensors["order"], header["step"]
        self.total = tensors["total"].to(self.device)
        self._earlier = header["seconds"]
        print(f"going on from {progress.place}: epoch {len(self.curve) + 1}, batch {self.step}", file=sys.stderr)
