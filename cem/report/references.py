"""The undefended networks that the gate of a given network rests on: what they are, and how well they do the task."""

from collections.abc import Iterator
from dataclasses import dataclass

import pandas as pd

from cem.planning.plan import Plan
from cem.report.groups import Group
from cem.report.inputs import read_test, read_training
from cem.report.statistics import near_chance

MARGIN = 0.1  # by how much less accurate a reference may be before it is warned of


@dataclass(frozen=True)
class Reference:
    """The references of a group whose network is given. Accuracies in [0, 1] on test, means over seeds.

    accuracy, own: of the references, and of the network that is given, under its noise and defences. epochs: that the
    pipeline trained them for, 0 where their weights are named. chance: whether one of them is near it.
    """

    label: str
    accuracy: float
    own: float
    epochs: int
    seeds: int
    chance: bool

    @property
    def text(self) -> str:
        """What the gate rests on, in a sentence."""
        trained = f"trained for it, {self.epochs} epochs" if self.epochs else "weights that model.reference names"
        seeds = f", {self.seeds} seeds" if self.epochs and self.seeds > 1 else ""
        return (
            f"The gate of {self.label} rests on an undefended reference ({trained}{seeds}) with a test accuracy of "
            f"{100 * self.accuracy:.1f} %; the network that was given has {100 * self.own:.1f} %."
        )

    @property
    def warning(self) -> str:
        """What is wrong with it, and what to do; empty: nothing is."""
        if not self.chance and self.accuracy >= self.own - MARGIN:
            return ""
        how = "near chance" if self.chance else f"more than {100 * MARGIN:.0f} points below the network that was given"
        remedy = (
            "Train it longer, or as the network was trained (training.reference)"
            if self.epochs
            else "Name the weights of one that was trained well (model.reference), and check mean, std and the data"
        )
        return (
            f"A weak reference: its test accuracy is {how}. {self.text} An encoder that has learned little is another "
            "than the one that is audited: attacks which invert it need not be strong on that one, and the gate says "
            f"less than it seems to. {remedy}."
        )


def references_of(plan: Plan, groups: list[Group]) -> Iterator[Reference]:
    """Those of each group that was asked for, whose network is given, where there are any with a result."""
    for group in groups:
        runs = [one for one in plan.undefended(group.first) if one.id in plan.runs]
        if group.reference or group.first.trained or not runs:
            continue
        found = [read_training(plan, run) for run in runs]
        own = [read_training(plan, run).accuracy_test for run in group.runs]
        accuracies = [one.accuracy_test for one in found if one.accuracy_test is not None]
        given = [one for one in own if one is not None]
        majority, images, _ = read_test(plan, group.first.dataset)
        told = {"majority_accuracy": majority, "test_images": images}
        yield Reference(
            group.label,
            sum(accuracies) / len(accuracies),
            sum(given) / len(given),
            max(one.epochs for one in found),
            len(found),
            any(near_chance(pd.Series({"accuracy": one, **told})) for one in accuracies),
        )
