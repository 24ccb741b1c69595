"""The gate: which attacks' numbers count.

An attack that cannot rebuild images where nothing hinders it says nothing about a defence. It must invert the
undefended references of a run (same data, architecture, cut and training; no surrogate, no defence, σ = 0; every seed
of the study) at the same budget: its MSE there is at most a part (`gate.max_mse_ratio`) of the mean image's, and below
that of the class's mean, and both by the upper end of the 95 % interval over the seeds. On the run itself it must have
converged, as far as its curve can tell. The mean image and the class's mean need no z: they are what it is held
against, and pass.
"""

import math
from dataclasses import dataclass
from typing import Any

from cem.config import AttackSettings, Run
from cem.planning.plan import Plan
from cem.report.statistics import Estimate, over_seeds

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """ok: the number counts. bound: the attack works but may do better, so that its MSE is an upper limit.

    broken: the attack works on the references, and its fit broke down here: what it would reach is not known.
    why: what is wrong, empty when nothing is.
    """

    ok: bool
    bound: bool = False
    broken: bool = False
    why: str = ""


def judge(plan: Plan, run: Run, attack: AttackSettings, rows: dict[tuple[str, str, str], Row]) -> Verdict:
    """The verdict on an attack on a run. rows: (run id, attack id, scope) → its scores."""
    if attack.yardstick:
        return Verdict(ok=True)
    here = rows[run.id, attack.id, "infer"]
    references = plan.undefended(run)
    there = [row for one in references if (row := rows.get((one.id, attack.id, "infer"))) is not None]
    gate = _on_references(there, len(references), plan.study.gate.max_mse_ratio)
    if here["failure"]:
        return Verdict(ok=False, broken=gate.ok or gate.bound, why=here["failure"])
    if not gate.ok:
        return gate
    if here["converged"] is False:
        return Verdict(ok=False, bound=True, why="had not converged: a larger budget would make it stronger")
    if here["converged"] is None and attack.trained:
        why = "its budget is too small to tell whether it had converged: give it at least 5 epochs (or steps)"
        return Verdict(ok=False, bound=True, why=why)
    return Verdict(ok=True)


def _on_references(there: list[Row], planned: int, max_ratio: float) -> Verdict:
    """Whether an attack with these scores, a row per seed, inverts the undefended references.

    bound: in the mean, but not surely: what it rebuilds elsewhere is rebuilt, and more may be possible.
    """
    found = _on_those(there, max_ratio) if there else Verdict(ok=True)
    if found.ok and len(there) < planned:
        why = f"has no result yet on {planned - len(there)} of the {planned} undefended references that it must invert"
        return Verdict(ok=False, bound=True, why=why)
    return found


def _on_those(there: list[Row], max_ratio: float) -> Verdict:
    failures = [row for row in there if row["failure"]]
    if failures:
        seeds = f" ({len(failures)} of {len(there)} seeds)" if len(there) > 1 else ""
        why = f"on the undefended reference{seeds}: {failures[0]['failure']}"
        return Verdict(ok=False, bound=len(failures) < len(there), why=why)
    ratio = over_seeds(_ratio(row) for row in there)
    if (above := _above(ratio, max_ratio)) is not None:
        sure, text = above
        how = "does not invert the undefended reference" if sure else "does not surely invert the undefended reference"
        why = f"{how}: its MSE there is {text}; at most {max_ratio:g} is allowed"
        return Verdict(ok=False, bound=not sure, why=why)
    margin = over_seeds(row["mse"] - row["mse_class_mean"] for row in there)
    if margin.mean >= 0:
        return Verdict(ok=False, why="does not beat the class's mean on the undefended reference")
    if margin.high >= 0:
        why = "does not surely beat the class's mean on the undefended reference: the interval over seeds reaches it"
        return Verdict(ok=False, bound=True, why=why)
    return Verdict(ok=True)


def _ratio(row: Row) -> float:
    return float(row["mse"] / row["mse_mean_image"]) if row["mse_mean_image"] > 0 else math.inf


def _above(ratio: Estimate, most: float) -> tuple[bool, str] | None:
    """Whether a ratio is above what is allowed surely (in the mean), and the ratio in words; None: it is not."""
    text = f"{ratio.mean:.2f} of the mean image's"
    if not math.isnan(ratio.half):
        text += f" (up to {ratio.high:.2f} by its interval over {ratio.n} seeds)"
    if ratio.mean > most:
        return True, text
    return (False, text) if ratio.high > most else None
