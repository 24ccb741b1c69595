"""How long a network is fitted, and at which rate: a number of epochs, or until twice as long brings no more."""

import math
from dataclasses import dataclass

from cem.attacks.base import CurveRow, Rung
from cem.config import Gan, NetworkFit

IMPROVEMENT = 0.02  # part of the held-out error that a last fifth of a number of epochs may still bring
MIN_EPOCHS = 5
LATE = 0.6  # part of the epochs before which the learning rate is still high, and an early end says nothing
LAST_RATE = 0.01  # part of the learning rate that the cosine ends at

FIRST_BUDGET = 4  # epochs, of which a quarter cools down
GAIN = 0.01  # part of the held-out error that twice the budget must bring, or the fit is at its end
PATIENT = 16  # epochs of a budget below which no fit ends: some learn nothing for a while


def cosine(done: float) -> float:
    """Of the learning rate, the part that is left when this part of a fit is behind it: 1 to LAST_RATE."""
    return LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Epochs:
    """A number of epochs; fewer where patience ends. decays: the rate falls along a cosine to a hundredth."""

    epochs: int
    patience: int | None = None
    decays: bool = True

    def rate(self, curve: list[CurveRow], part: float) -> float:
        """Of the learning rate, the part for a batch. part: of the epoch under way that is behind it, in [0, 1)."""
        if not self.decays:
            return 1.0
        return cosine((len(curve) + part) / self.epochs)

    def is_over(self, curve: list[CurveRow]) -> bool:
        """Whether no epoch follows."""
        return len(curve) >= self.epochs or self._out_of_patience(curve)

    def converged(self, curve: list[CurveRow]) -> bool | None:
        """Of a fit at its end, whether the last fifth brought little; False where patience ended before lower rates."""
        if self._out_of_patience(curve) and len(curve) < LATE * self.epochs:
            return False
        return has_converged([row["val_mse"] for row in curve])

    def until(self, curve: list[CurveRow]) -> int:
        """Epochs in all, as far as is known now."""
        return self.epochs

    def _out_of_patience(self, curve: list[CurveRow]) -> bool:
        if self.patience is None:
            return False
        errors = [math.inf, *(row["val_mse"] for row in curve)]  # the first weights count as the worst
        return len(curve) - errors.index(min(errors)) >= self.patience


@dataclass(frozen=True)
class Auto:
    """A ladder of budgets, each twice the one before, until one brings less than 1 %, or the next exceeds `most`.

    The learning rate rises over the first epoch and then stays; each budget ends with a cool-down, a quarter of its
    epochs, in which the rate falls to nothing. The fit then goes back to where the cool-down began, and the constant
    rate goes on: so a ladder costs no more than a quarter beyond its last budget. Of a budget that is `PATIENT` epochs
    or more, half of it must have done as well for the fit to end, and to count as converged.

    Source: Hu et al. 2024 (arXiv 2404.06395), the schedule warm-up, stable, decay; Hägele et al. 2024 (arXiv
    2405.18392), cool-downs branched off one constant rate.
    """

    most: int

    def rate(self, curve: list[CurveRow], part: float) -> float:
        """As in `Epochs`."""
        place = self.place(len(curve))
        if place.cooling:
            return 1 - (place.epoch + part) / place.epochs
        return 1.0 if curve else part

    def is_over(self, curve: list[CurveRow]) -> bool:
        """Whether a budget is finished, and none follows."""
        rungs = self.rungs(curve)
        if not curve or not self.place(len(curve)).begins_stable:
            return False
        last = rungs[-1].epochs
        return 2 * last > self.most or (last >= PATIENT and gain(rungs) < GAIN)

    def converged(self, curve: list[CurveRow]) -> bool | None:
        """Whether half of the last budget did as well; None: there was only one."""
        rungs = self.rungs(curve)
        return rungs[-1].epochs >= PATIENT and gain(rungs) < GAIN if len(rungs) > 1 else None

    def until(self, curve: list[CurveRow]) -> int:
        """Epochs of the whole fit until the budget under way is finished."""
        place = self.place(len(curve))
        left = place.epochs - place.epoch + (0 if place.cooling else place.budget // 4)
        return len(curve) + left

    @staticmethod
    def budget(rung: int) -> int:
        """Epochs of a budget, counted from 0: at the constant rate and in the cool-down."""
        return FIRST_BUDGET * (1 << rung)

    @staticmethod
    def rungs(curve: list[CurveRow]) -> list[Rung]:
        """The budgets that are finished: epochs, least held-out error of the cool-down, seconds of the whole fit."""
        found: list[Rung] = []
        start, seconds = 0, 0.0
        while (end := Auto.end(len(found))) <= len(curve):
            seconds += sum(row["seconds"] for row in curve[start:end])
            cooled = curve[end - (1 << len(found)) : end]
            found.append(Rung(Auto.budget(len(found)), min(row["val_mse"] for row in cooled), seconds))
            start = end
        return found

    @staticmethod
    def end(rung: int) -> int:
        """Epochs of the whole fit until a budget, counted from 0, is finished."""
        return (FIRST_BUDGET - 1) * (1 << rung) + (2 << rung) - 1

    def place(self, done: int) -> "Place":
        """Where the epoch after so many stands."""
        rung = 0
        while self.end(rung) <= done:
            rung += 1
        into = done - (self.end(rung - 1) if rung else 0)
        stable = (FIRST_BUDGET - 1) * ((1 << rung) - ((1 << (rung - 1)) if rung else 0))
        cooling = into >= stable
        return Place(
            budget=self.budget(rung),
            cooling=cooling,
            epoch=into - stable if cooling else into,
            epochs=(1 << rung) if cooling else stable,
        )


@dataclass(frozen=True)
class Place:
    """An epoch on the ladder: of which budget, in its cool-down or at the constant rate, and the how manieth there.

    epoch: counted from 0, of `epochs`.
    """

    budget: int
    cooling: bool
    epoch: int
    epochs: int

    @property
    def begins_cooling(self) -> bool:
        """Whether the constant rate ends here."""
        return self.cooling and self.epoch == 0

    @property
    def begins_stable(self) -> bool:
        """Whether a cool-down is behind it, or nothing."""
        return not self.cooling and self.epoch == 0


def budget_of(cfg: NetworkFit | Gan) -> Epochs | Auto:
    """What the settings ask for."""
    if isinstance(cfg, Gan):
        return Epochs(cfg.epochs, decays=False)
    if cfg.epochs is not None:
        return Epochs(cfg.epochs, cfg.patience)
    return Auto(cfg.max_epochs)


def gain(rungs: list[Rung]) -> float:
    """What the last budget brought on the best before it, in parts of that; infinite for the first, 0 for nothing."""
    if len(rungs) < 2:
        return math.inf
    before, after = min(rung.val_mse for rung in rungs[:-1]), rungs[-1].val_mse
    return (before - after) / before if after < before else 0.0


def has_converged(val_mse: list[float]) -> bool | None:
    """Whether the last fifth of the epochs brought less than 2 % on the best held-out error before it.

    None below MIN_EPOCHS epochs, which say nothing.
    """
    if len(val_mse) < MIN_EPOCHS:
        return None
    last = len(val_mse) // 5
    before, after = min(val_mse[:-last]), min(val_mse[-last:])
    return before - after < IMPROVEMENT * before
