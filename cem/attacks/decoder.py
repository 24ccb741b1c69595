"""A convolutional decoder trained to turn z into the image."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import CosineAnnealingLR

from cem.attacks.base import Fitted, Knowledge
from cem.attacks.fit_loop import FitLoop, NetworkAttack, descend
from cem.attacks.fit_state import FitState, Readings
from cem.attacks.loss import weighted_loss
from cem.config import Decoder, Loss, StartingDecoder
from cem.jobs.state import StateStore


class DecoderAttack(NetworkAttack):
    """Adam, fresh corruption each step, the best epoch on images the attacker held out.

    The learning rate falls along a cosine, step by step, to a hundredth. Where settings leave it open, each of
    `lr_sweep` gets a full fit from the same weights and draws, and the one with the least held-out error is kept. A fit
    that is interrupted goes on from its last save, and ends with the same bits (CPU). One that diverges ends there,
    with the best weights before: that is a failure to be told, not an error. Source of the published settings:
    docs/theory.md, "The attacks"; docs/published.md, "Settings".
    """

    def __init__(self, cfg: Decoder | StartingDecoder, store: StateStore | None = None, name: str = "") -> None:
        """Name: in messages; absent: the attack's, or `decoder`."""
        self.cfg, self.store = cfg, store or StateStore()
        self.name = name or (cfg.id if isinstance(cfg, Decoder) else "decoder")

    def fit(self, knowledge: Knowledge) -> Fitted:
        self.know(knowledge)
        fits = [self._fit(lr, knowledge, self.store.part(f"lr{i}")) for i, lr in enumerate(self._rates)]
        best = min(fits, key=lambda fit: (bool(fit.state.failure), fit.state.best_mse))
        self.net = best.state.net
        sweep = {str(fit.lr): fit.error for fit in fits}
        early = len(best.state.curve) < self.cfg.epochs and not best.state.failure
        return best.loop.fitted(
            best.state, lr=best.lr, stopped_early=early, **({} if self.cfg.lr else {"sweep": sweep})
        )

    @property
    def _rates(self) -> tuple[float, ...]:
        if isinstance(self.cfg, Decoder) and self.cfg.lr is None:
            return self.cfg.lr_sweep
        assert self.cfg.lr is not None
        return (self.cfg.lr,)

    def _fit(self, lr: float, knowledge: Knowledge, store: StateStore) -> "_Fit":
        name = self.name if self.cfg.lr else f"{self.name}, lr {lr:g}"
        loop = FitLoop(self.cfg, knowledge, name)
        net, generators = loop.make_net(), loop.generators()
        optimizer = torch.optim.Adam(net.parameters(), lr=lr, weight_decay=self.cfg.weight_decay)
        schedule = CosineAnnealingLR(optimizer, T_max=max(1, self.cfg.epochs * loop.steps), eta_min=lr / 100)

        def step(rows: Int[Tensor, " rows"]) -> Readings:
            target = knowledge.targets(rows)
            reconstruction = net(knowledge.observe(rows, generators["corruption"]))
            error = mse_loss(reconstruction, target)
            plain = self.cfg.loss == Loss()
            loss = error if plain else weighted_loss(self.cfg.loss, reconstruction, target)
            descend(optimizer, loss)
            schedule.step()
            return {"train_mse": error} if plain else {"train_mse": error, "train_loss": loss}

        state = FitState({"net": net}, {"net": optimizer}, generators, schedule)
        loop.run(state, step, store)
        return _Fit(lr, loop, state)


@dataclass(frozen=True)
class _Fit:
    """A fit with one learning rate, at its end."""

    lr: float
    loop: FitLoop
    state: FitState

    @property
    def error(self) -> float | None:
        """Least held-out error; None where the fit diverged, or had no epoch."""
        error = self.state.best_mse
        return None if self.state.failure or math.isinf(error) else error
