"""Groups: the runs that differ only in their seed, and how a quantity spreads over them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cem.config import Run
from cem.planning.plan import Plan


@dataclass(frozen=True)
class Group:
    """Runs that differ only in their seed."""

    label: str
    runs: tuple[Run, ...]
    reference: bool = False  # added by the plan, for attacks to be held against; not asked for

    @property
    def first(self) -> Run:
        """The run that pictures are taken from."""
        return self.runs[0]

    def without_surrogate(self, groups: "list[Group]") -> "Group | None":
        """The group that differs from this one only in having no surrogate; None when the study asks for none."""
        wanted = _settings(self.first, "seed", "surrogate")
        plain = [group for group in groups if not group.first.surrogate.adds_term and not group.reference]
        return next((group for group in plain if _settings(group.first, "seed", "surrogate") == wanted), None)

    def rows(self, results: pd.DataFrame) -> pd.DataFrame:
        """The results of this group's runs."""
        return results[results["run"].isin([run.id for run in self.runs])]

    def headline(self, results: pd.DataFrame, scope: str = "infer") -> pd.DataFrame:
        """One row a seed, indexed by it: the strongest attack on Infer, scored on `scope`. None where all failed."""
        rows = self.rows(results)
        strongest = rows.loc[(rows["scope"] == "infer") & rows["strongest"], ["run", "attack"]]
        return rows[rows["scope"] == scope].merge(strongest, on=["run", "attack"]).set_index("seed")

    def about(self, results: pd.DataFrame) -> pd.DataFrame:
        """One row a seed, indexed by it: what does not depend on the attack."""
        return self.rows(results).drop_duplicates("run").set_index("seed")


def group_plan(plan: Plan) -> list[Group]:
    """The groups of a study, then the references that the plan adds to it."""
    added = [run for name, run in plan.runs.items() if name not in plan.asked]
    references = [Group(_reference_label(run, added), (run,), reference=True) for run in added]
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
        "arch": lambda r: r.model.arch,
        "cut": lambda r: f"cut {r.model.cut_layer}",
        "noise": lambda r: f"σ {r.noise_std:g}",
        "defenses": lambda r: "+".join(defense.label for defense in r.defenses) or "no defence",
    }
    varying = [name for name in named.values() if len({name(other) for other in others}) > 1]

    def short(r: Run) -> str:
        return ", ".join([r.surrogate.label, *(name(r) for name in varying)])

    twins = [_dotted(other.model_dump(mode="json")) for other in others if short(other) == short(run)]
    own = _dotted(run.model_dump(mode="json"))
    apart = [f"{key} {own[key]}" for key in own if any(twin.get(key) != own[key] for twin in twins) and key != "seed"]
    return ", ".join([short(run), *apart])


def _dotted(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in _dotted(item, f"{name}.{key}".strip(".")).items()}
    return {name: value}


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of one number a seed; the deviation is NaN for a single seed."""

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Of the given numbers, NaNs left out."""
        kept = [float(value) for value in values if not math.isnan(value)]
        if not kept:
            return cls(math.nan, math.nan, 0)
        mean = float(np.mean(kept))
        sd = float(np.std(kept, ddof=1)) if len(kept) > 1 and math.isfinite(mean) else math.nan
        return cls(mean, sd, len(kept))

    def text(self, digits: int = 3, signed: bool = False) -> str:
        """`mean ± sd`, the mean to so many significant digits; only the mean for one seed; – for none."""
        if math.isnan(self.mean):
            return "–"
        if math.isinf(self.mean):
            return "∞" if self.mean > 0 else "−∞"
        largest = max(abs(self.mean), 0.0 if math.isnan(self.sd) else self.sd)
        decimals = min(6, max(0, digits - 1 - math.floor(math.log10(largest)))) if largest > 0 else digits - 1
        mean = f"{self.mean:{'+' if signed else ''}.{decimals}f}".replace("-", "−")
        return mean if math.isnan(self.sd) else f"{mean}\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}{self.sd:.{decimals}f}"
