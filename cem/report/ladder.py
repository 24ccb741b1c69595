"""Ladders, decoders that differ in size alone: whether a larger one would still come closer."""

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cem.config import AttackSettings
from cem.planning.plan import Plan
from cem.report.cells import attack_cell, notes_of, seeds_text, working
from cem.report.groups import Group, group_plan
from cem.report.inputs import read_attack
from cem.report.scores import Scores
from cem.report.table import Table
from cem.report.threat import SEPARATOR, ThreatModel, threat_models

Ladder = list[AttackSettings]
_HELPS = -0.03  # change of the error by the last step, beyond which a larger network is taken to help


@dataclass(frozen=True)
class Rung:
    """A decoder of a ladder on a group. rows: one per seed. change: of the error against the next smaller decoder.

    The change is of the seeds in which neither failed, in parts of the smaller one's error; NaN where there are none,
    and on the first rung.
    """

    attack: str
    parameters: int
    rows: pd.DataFrame
    change: float


def ladders(plan: Plan) -> list[Ladder]:
    """The decoders that differ in nothing but their network, their name, and the runs that they attack."""
    steps: dict[str, Ladder] = {}
    for attack in plan.study.attacks:
        if attack.on_ladder:
            alike = attack.model_copy(update={"net": "", "name": None, "runs": "all"})
            steps.setdefault(repr(alike), []).append(attack)
    return [ladder for ladder in steps.values() if len(ladder) > 1]


def climb(plan: Plan, group: Group, ladder: Ladder, results: pd.DataFrame) -> list[Rung]:
    """The rungs that a group has results of, smallest first; none where it has a single one."""
    infer = group.infer(results)
    found = {attack.id: rows for attack in ladder if not (rows := infer[infer["attack"] == attack.id]).empty}
    sizes = {name: read_attack(plan, plan.runs[rows["run"].iloc[0]], name).parameters for name, rows in found.items()}
    rungs: list[Rung] = []
    for name, parameters in sorted(sizes.items(), key=lambda item: item[1]):
        change = _change(rungs[-1].rows, found[name]) if rungs else math.nan
        rungs.append(Rung(name, parameters, found[name], change))
    return rungs if len(rungs) > 1 else []


def larger_helps(plan: Plan, group: Group, results: pd.DataFrame, threat: ThreatModel) -> bool:
    """Whether the last step of a threat model's ladder still brought more than 3 % on a group."""
    own = [ladder for ladder in ladders(plan) if ThreatModel.of(ladder[0]) == threat]
    return any(_helps(climb(plan, group, ladder, results)) for ladder in own)


def mark_limited(plan: Plan, rows: list[dict[str, Any]], results: pd.DataFrame) -> None:
    """Mark the strongest attacks of runs whose ladder a larger network would go on: their errors are upper limits.

    results: the table of these rows.
    """
    if not ladders(plan):
        return
    limited: set[tuple[str, str]] = set()
    for group in group_plan(plan):
        for threat in threat_models(plan):
            if larger_helps(plan, group, results, threat):
                limited |= {(run.id, threat.label) for run in group.runs}
    for row in rows:
        threats = row["strongest_of"].split(SEPARATOR)
        row["strongest_bound"] |= any((row["run"], threat) in limited for threat in threats)


def ladder_table(plan: Plan, groups: list[Group], results: pd.DataFrame, scores: Scores) -> Table | None:
    """One row a decoder, smallest first, on each group, the references' first; None where no group has two."""
    rows: list[tuple[str, ...]] = []
    for group in sorted(groups, key=lambda one: not plan.is_reference(one.first)):
        for ladder in ladders(plan):
            rungs = climb(plan, group, ladder, results)
            for rung in rungs:
                mark = " ¶" if rung is rungs[-1] and _helps(rungs) else ""
                cells = (rung.attack, f"{rung.parameters:,}", attack_cell(rung.rows, scores), _text(rung) + mark)
                rows.append((group.label, seeds_text(group), *cells))
    if not rows:
        return None
    header = ("runs", "seeds", "decoder", "parameters", "MSE, Infer", "change, %")
    note = "change: of the error against the next smaller decoder."
    return Table("ladder", header, rows, (note, *notes_of(rows)), text_columns=3)


def _change(smaller: pd.DataFrame, larger: pd.DataFrame) -> float:
    before, after = (working(rows).set_index("seed")["mse"] for rows in (smaller, larger))
    shared = before.index.intersection(after.index)
    return float(after[shared].mean() / before[shared].mean() - 1) if len(shared) else math.nan


def _helps(rungs: list[Rung]) -> bool:
    return bool(rungs) and rungs[-1].change < _HELPS


def _text(rung: Rung) -> str:
    return "" if math.isnan(rung.change) else f"{100 * rung.change:+.1f}".replace("-", "−")
