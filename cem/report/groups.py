"""Groups: the runs that differ only in their seed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cem.config import Run
from cem.config.paths import dotted
from cem.planning.plan import Plan
from cem.report.threat import SEPARATOR, ThreatModel


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    label: str
    runs: tuple[Run, ...]
    reference: bool = False  # added by the plan, for attacks to be held against; not asked for
    # Selections of tables, each with its table, so that no other is taken for it. A page asks for each many times.
    _made: dict[tuple[int, str, str], tuple[pd.DataFrame, pd.DataFrame]] = field(
        default_factory=dict, compare=False, repr=False
    )

    @property
    def first(self) -> Run:
        """The run that pictures are taken from."""
        return self.runs[0]

    @property
    def one_network(self) -> bool:
        """Whether all seeds have the network, or the z, that is given: their spread then says nothing of training."""
        return not self.first.trained and self.first.model.fixed

    @property
    def masked(self) -> bool:
        """Whether a defence sends only part of ẑ + ε."""
        return any(defense.masks for defense in self.first.defenses)

    @property
    def promises(self) -> tuple[str, ...]:
        """What its defences state of themselves, and of what that is so."""
        return tuple(f"{defense.label}: {defense.meaning}." for defense in self.first.defenses if defense.meaning)

    def rows(self, results: pd.DataFrame) -> pd.DataFrame:
        """The results of this group's runs."""
        return self._once(results, "", "", lambda: results[results["run"].isin([run.id for run in self.runs])])

    def infer(self, results: pd.DataFrame) -> pd.DataFrame:
        """Those of them on test images."""
        rows = self.rows(results)
        return self._once(results, "", "infer", lambda: rows[rows["scope"] == "infer"])

    def _once(self, results: pd.DataFrame, threat: str, scope: str, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
        key = (id(results), threat, scope)
        if key not in self._made:
            self._made[key] = results, make()
        return self._made[key][1]

    def headline(self, results: pd.DataFrame, threat: ThreatModel, scope: str = "infer") -> pd.DataFrame:
        """One row per seed, indexed by it: the strongest attack of one threat model on Infer, scored on `scope`.

        Seeds where all of its attacks failed are absent. A yardstick stands in where no attack is better.
        """
        return self._once(results, threat.label, scope, lambda: self._headline(results, threat, scope))

    def _headline(self, results: pd.DataFrame, threat: ThreatModel, scope: str) -> pd.DataFrame:
        rows = self.rows(results)
        best = rows[(rows["scope"] == "infer") & rows["strongest"]]
        named = zip(best["run"], best["attack"], best["strongest_of"], strict=True)
        chosen = {(run, attack) for run, attack, of in named if threat.label in of.split(SEPARATOR)}
        mine = [pair in chosen for pair in zip(rows["run"], rows["attack"], strict=True)]
        return rows[(rows["scope"] == scope) & np.array(mine, bool)].set_index("seed")

    def about(self, results: pd.DataFrame) -> pd.DataFrame:
        """One row per seed, indexed by it: what does not depend on the attack."""
        rows = self.rows(results)
        return self._once(results, "", "about", lambda: rows.drop_duplicates("run").set_index("seed"))


def group_plan(plan: Plan) -> list[Group]:
    """The groups of a study, then the references that the plan adds to it."""
    added = [run for name, run in plan.runs.items() if name not in plan.asked]
    firsts = [group.first for group in group_runs(added)]
    references = [Group(_reference_label(one.first, firsts), one.runs, reference=True) for one in group_runs(added)]
    return group_runs(plan.asked.values()) + references


def group_runs(runs: Iterable[Run]) -> list[Group]:
    """Groups in the order of their first runs, labelled by what tells them apart."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        members.setdefault(repr(_settings(run, "seed")), []).append(run)
    firsts = [group[0] for group in members.values()]
    return [Group(_label(group[0], firsts), tuple(group)) for group in members.values()]


def _reference_label(run: Run, others: list[Run]) -> str:
    _, _, apart = _label(run, others).partition(", ")
    return f"undefended reference, {apart}" if apart else "undefended reference"


def _settings(run: Run, *without: str) -> dict[str, Any]:
    return {name: value for name, value in run.sparse().items() if name not in without}


def _label(run: Run, others: list[Run]) -> str:
    """The surrogate, and each named setting that varies in the study; any other where these leave two groups equal."""
    named: dict[str, Callable[[Run], str]] = {
        "dataset": lambda r: r.dataset.name,
        "arch": lambda r: r.model.label,
        "cut": lambda r: f"cut {r.model.cut_layer}",
        "noise": lambda r: "" if any(one.adds_noise for one in r.defenses) else f"σ {r.noise_std:g}",  # it has its own
        "defenses": lambda r: "+".join(defense.label for defense in r.defenses) or "no defence",
    }
    varying = [name for name in named.values() if len({name(other) for other in others}) > 1]

    def short(r: Run) -> str:
        return ", ".join([r.surrogate.label, *filter(None, (name(r) for name in varying))])

    twins = [dotted(other.model_dump(mode="json")) for other in others if short(other) == short(run)]
    own = dotted(run.model_dump(mode="json"))
    apart = [f"{key} {own[key]}" for key in own if any(twin.get(key) != own[key] for twin in twins) and key != "seed"]
    return ", ".join([short(run), *apart])
