"""What settings leave open, chosen by short fits on images that the attacker held out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

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

    def error(self, rung: int) -> float:
        """Held-out squared error at the end of a budget, or of the last before it; infinite where the fit diverged."""
        self.run(Auto.end(rung))
        rungs = Auto.rungs(self.state.curve)[: rung + 1]
        failed = self.state.failure and len(rungs) <= rung  # later failures are not known to the first attempt either
        return math.inf if failed or not rungs else rungs[-1].val_mse


@runtime_checkable
class Trial(Protocol):
    """What `halve` asks of a candidate."""

    def error(self, rung: int) -> float: ...


T = TypeVar("T", bound=Trial)


def halve(trials: Mapping[str, T]) -> tuple[str, dict[str, Any]]:
    """The name of the trial that is left, and of each the last budget that it had and the error there.

    All get the same budget; the better half gets twice as much, until one is left. Of equals the first is kept. An
    error that is not known is None.

    Source: Jamieson & Talwalkar 2016 (arXiv 1502.07943), successive halving.
    """
    alive: Sequence[str] = list(trials)
    said: dict[str, Any] = {}
    rung = FIRST
    while len(alive) > 1:
        errors = {name: trials[name].error(rung) for name in alive}
        for name, error in errors.items():
            said[name] = {"epochs": Auto.budget(rung), "val_mse": error if math.isfinite(error) else None}
        alive = sorted(alive, key=errors.__getitem__)[: (len(alive) + 1) // 2]
        rung += 1
    return alive[0], said
