"""What settings leave open, chosen by short fits on images that the attacker held out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from cem.attacks.base import Rung
from cem.attacks.budget import Auto
from cem.attacks.fit_loop import FitLoop, Step
from cem.attacks.fit_state import FitState
from cem.jobs.state import StateStore

FIRST = 1  # of the ladder of budgets, where the first candidates are left behind


class Fit:
    """A network's fit with one choice of settings: run to some budget of its ladder, or to its end."""

    def __init__(self, loop: FitLoop, state: FitState, step: Step, store: StateStore) -> None:
        self.loop, self.state, self.step, self.store = loop, state, step, store

    def run(self, epochs: int | None = None) -> None:
        """To its end, or for so many epochs in all. Raises Interrupted when asked to stop."""
        self.loop.run(self.state, self.step, self.store, epochs)

    def rung(self, rung: int) -> Rung | None:
        """The budget that it had, at the end of this one or of the last before it; None where the fit diverged."""
        self.run(Auto.end(rung))
        rungs = Auto.rungs(self.state.curve)[: rung + 1]
        failed = self.state.failure and len(rungs) <= rung  # later failures are not known to the first attempt either
        return None if failed or not rungs else rungs[-1]


@runtime_checkable
class Trial(Protocol):
    """What `halve` asks of a candidate."""

    def rung(self, rung: int) -> Rung | None: ...


T = TypeVar("T", bound=Trial)


def halve(trials: Mapping[str, T]) -> tuple[str, dict[str, Any]]:
    """The name of the trial that is left, and of each the last budget that it had and the error there.

    All get the same budget; the better half gets twice as much, until one is left. Of equals the first is kept. Of a
    trial that diverged both are None.

    Source: Jamieson & Talwalkar 2016 (arXiv 1502.07943), successive halving.
    """
    alive: Sequence[str] = list(trials)
    said: dict[str, Any] = {}
    rung = FIRST
    while len(alive) > 1:
        found = {name: trials[name].rung(rung) for name in alive}
        for name, one in found.items():
            said[name] = {"epochs": one and one.epochs, "val_mse": one and one.val_mse}
        errors = {name: math.inf if one is None else one.val_mse for name, one in found.items()}
        alive = sorted(alive, key=errors.__getitem__)[: (len(alive) + 1) // 2]
        rung += 1
    return alive[0], said
