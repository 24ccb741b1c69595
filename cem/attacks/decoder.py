"""A convolutional decoder trained to turn z into the image."""

from typing import Any

import torch
from jaxtyping import Int
from torch.nn.functional import mse_loss

from cem.attacks.base import Fitted, Knowledge
from cem.attacks.fit_loop import FitLoop, NetworkAttack, descend
from cem.attacks.fit_state import FitState, Readings
from cem.attacks.loss import weighted_loss
from cem.attacks.tuning import Fit, halve
from cem.config import Decoder, Loss, StartingDecoder, TunedFit
from cem.jobs.state import StateStore


class DecoderAttack(NetworkAttack):
    """Adam, fresh corruption each step, the best epoch on images the attacker held out.

    How long it is fitted, and at which rate: `Auto` and `Epochs`. Where settings leave learning rate, loss or network
    open, short fits of all combinations are halved by their held-out error until one is left (`halve`). A fit that is
    interrupted goes on from its last save, and ends with the same bits (CPU). One that diverges ends there, with the
    best weights before: that is a failure to be told, not an error. Source of the published settings: docs/theory.md,
    "The attacks"; docs/published.md, "Settings".
    """

    def __init__(self, cfg: Decoder | StartingDecoder, store: StateStore | None = None, name: str = "") -> None:
        """Name: in messages; absent: the attack's, or `decoder`."""
        self.cfg, self.store = cfg, store or StateStore()
        self.name = name or (cfg.id if isinstance(cfg, Decoder) else "decoder")

    def fit(self, knowledge: Knowledge) -> Fitted:
        self.know(knowledge)
        fit, choices = self._chosen(knowledge)
        fit.run()
        self.net, self.facts = fit.state.net, fit.loop.facts
        early = {} if self.cfg.patience is None else {"stopped_early": len(fit.state.curve) < (self.cfg.epochs or 0)}
        return fit.loop.fitted(fit.state, **choices, **early)

    def _chosen(self, knowledge: Knowledge) -> tuple[Fit, dict[str, Any]]:
        """The fit that is to be run to its end, with what was open chosen; and what was chosen, from what."""
        if isinstance(self.cfg, StartingDecoder):
            return self._fit(self.cfg, knowledge, "net"), {"lr": self.cfg.lr}
        candidates = self.cfg.candidates()
        if len(candidates) == 1:
            ((chosen, cfg),) = candidates.items()
            return self._fit(cfg, knowledge, "net"), cfg.choices
        trials = {
            name: self._fit(cfg.short(), knowledge, f"trial{number}", f", {name}")
            for number, (name, cfg) in enumerate(candidates.items())
        }
        chosen, tried = halve(trials)
        cfg = candidates[chosen]
        goes_on = cfg == cfg.short()
        fit = trials[chosen] if goes_on else self._fit(cfg, knowledge, "net")
        return fit, cfg.choices | {"tried": tried}

    def _fit(self, cfg: TunedFit | StartingDecoder, knowledge: Knowledge, part: str, label: str = "") -> Fit:
        loop = FitLoop(cfg, knowledge, self.name + label)
        net, generators = loop.make_net(), loop.generators()
        start_mse = loop.start({"net": net})
        optimizer = torch.optim.Adam(net.parameters(), lr=cfg.lr or 0, weight_decay=cfg.weight_decay)
        plain = cfg.loss == Loss()

        def step(rows: Int[torch.Tensor, " rows"]) -> Readings:
            target = knowledge.targets(rows)
            reconstruction = net(knowledge.observe(rows, generators["corruption"]))
            error = mse_loss(reconstruction, target)
            loss = error if plain else weighted_loss(cfg.loss, reconstruction, target)
            descend(optimizer, loss)
            return {"train_mse": error} if plain else {"train_mse": error, "train_loss": loss}

        state = FitState({"net": net}, {"net": optimizer}, generators, start_mse)
        return Fit(loop, state, step, self.store.part(part))
