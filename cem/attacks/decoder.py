"""A convolutional decoder trained to turn z into the image."""

import sys
import time

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from tqdm import tqdm

from cem.attacks.base import AttackError, CurveRow, Fitted, Knowledge, hold_out
from cem.attacks.fit_state import FitState
from cem.config import Decoder
from cem.models.decoder import make_decoder
from cem.resume import SAVE_EVERY_S, Interrupted, Progress
from cem.types import Images, Labels, Smashed

IMPROVEMENT = 0.02  # part of the held-out error that a last fifth of the epochs may still bring
MIN_EPOCHS = 5


class DecoderAttack:
    """Adam on the mean squared error, fresh corruption each step, the best epoch on images the attacker held out.

    The learning rate falls along a cosine, step by step, to a hundredth. No augmentation: z of a changed image would
    need the encoder. A fit that is interrupted goes on from its last save, and ends with the same bits (CPU). Source of
    the published settings: REFERENCE §6.
    """

    net: nn.Module

    def __init__(self, cfg: Decoder, progress: Progress | None = None) -> None:
        self.cfg, self.progress = cfg, progress or Progress()

    def fit(self, knowledge: Knowledge) -> Fitted:
        split = self._generator(knowledge, "split", "cpu")
        fit_rows, held_rows = hold_out(knowledge.num_images, self.cfg.held_out, split)
        self.net = self._make_net(knowledge)
        generators = {"shuffle": self._generator(knowledge, "shuffle", "cpu")}
        generators["corruption"] = self._generator(knowledge, "corruption")
        fit = FitState(self.cfg, self.net, generators, steps=max(1, len(fit_rows) // self.cfg.batch_size))
        fit.restore(self.progress)
        while len(fit.curve) < self.cfg.epochs:
            if not len(fit.order):
                fit.order = fit_rows[torch.randperm(len(fit_rows), generator=generators["shuffle"])]
            train_mse = self._epoch(knowledge, fit)
            val_mse = self._validate(knowledge, held_rows)
            _check_finite(len(fit.curve) + 1, train_mse=train_mse, val_mse=val_mse)
            fit.end_epoch(train_mse, val_mse)
            fit.save(self.progress)
            if not sys.stderr.isatty():
                _print_line(self.cfg, fit.curve)
        self.net.load_state_dict(fit.best)
        val = [row["val_mse"] for row in fit.curve]
        return Fitted(
            parameters=sum(parameter.numel() for parameter in self.net.parameters()),
            curve=fit.curve,
            converged=has_converged(val),
            choices={"epoch": val.index(min(val)) + 1},
        )

    @torch.no_grad()
    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        images: Tensor = self.net.eval()(smashed)
        return images

    def _generator(self, knowledge: Knowledge, purpose: str, device: str | None = None) -> torch.Generator:
        return knowledge.generator(f"{self.cfg.seed}/{purpose}", device)

    def _make_net(self, knowledge: Knowledge) -> nn.Module:
        first = slice(0, 1)
        smashed = knowledge.observe(first, self._generator(knowledge, "validation"))
        weights = self._generator(knowledge, "weights", "cpu")
        return make_decoder(self.cfg.net, _shape(smashed), _shape(knowledge.targets(first)), weights).to(
            knowledge.device
        )

    def _epoch(self, knowledge: Knowledge, fit: FitState) -> float:
        """What is left of a pass; an incomplete last batch is left out unless it is the only one.

        Mean of the pass's batches' errors. Raises Interrupted when asked to stop.
        """
        self.net.train()
        order, corruption = fit.order, fit.generators["corruption"]
        size = min(self.cfg.batch_size, len(order))
        batches = torch.split(order[: len(order) // size * size], size)
        save_at = time.monotonic() + SAVE_EVERY_S
        rest = tqdm(
            batches[fit.step :], f"{self.cfg.id} {len(fit.curve) + 1}/{self.cfg.epochs}", leave=False,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for rows in rest:
            loss = mse_loss(self.net(knowledge.observe(rows, corruption)), knowledge.targets(rows))
            fit.descend(loss)
            stopping = self.progress.asked_to_stop()
            if stopping or time.monotonic() > save_at:
                save_at = time.monotonic() + SAVE_EVERY_S
                fit.save(self.progress)
                if stopping:
                    raise Interrupted
        return fit.total.item() / len(batches)

    def _validate(self, knowledge: Knowledge, held_rows: Int[Tensor, " rows"]) -> float:
        """Mean squared error on the held-out images, under the same corruption every epoch."""
        corruption = self._generator(knowledge, "validation")
        total = torch.zeros((), dtype=torch.float64, device=knowledge.device)
        for rows in torch.split(held_rows, self.cfg.batch_size):
            reconstruction = self.reconstruct(knowledge.observe(rows, corruption))
            total += (reconstruction - knowledge.targets(rows)).square().flatten(1).mean(1).sum(dtype=torch.float64)
        return total.item() / len(held_rows)


def _shape(batch: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = batch.shape
    return channels, height, width


def has_converged(val_mse: list[float]) -> bool | None:
    """Whether the last fifth of the epochs brought less than 2 % on the best held-out error before it.

    None below MIN_EPOCHS epochs, which say nothing.
    """
    if len(val_mse) < MIN_EPOCHS:
        return None
    last = len(val_mse) // 5
    before, after = min(val_mse[:-last]), min(val_mse[-last:])
    return before - after < IMPROVEMENT * before


def _check_finite(epoch: int, **errors: float) -> None:
    for name, value in errors.items():
        if not torch.isfinite(torch.tensor(value)):
            raise AttackError(
                f"decoder: {name} is {value} in epoch {epoch}; expected a finite number. Lower the attack's lr."
            )


def _print_line(cfg: Decoder, curve: list[CurveRow]) -> None:
    row, left = curve[-1], sum(row["seconds"] for row in curve) / len(curve) * (cfg.epochs - len(curve))
    print(
        f"{cfg.id}: epoch {len(curve)}/{cfg.epochs}, train_mse {row['train_mse']:.5f}, val_mse {row['val_mse']:.5f}, "
        f"{row['seconds']:.1f} s, {left:.0f} s left",
        file=sys.stderr,
        flush=True,
    )
