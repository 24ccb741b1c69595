"""The gate: which attacks' numbers count.

An attack that cannot rebuild images where nothing hinders it says nothing about a defence. It must invert the
undefended reference of a run (same data, architecture, cut and training; no surrogate, no defence, σ = 0) at the same
budget: its MSE there is at most a part (`gate.max_mse_ratio`) of the mean image's, and below that of the class's mean.
On the run itself it must have converged, as far as its curve can tell. The mean image and the class's mean need no z:
they are what it is held against, and pass.
"""

from dataclasses import dataclass
from typing import Any

from cem.config import AttackSettings, Run
from cem.planning.plan import Plan

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """ok: the number counts. bound: the attack works but was still improving, so its MSE is an upper limit.

    broken: the attack works on the reference, and its fit broke down here: what it would reach is not known.
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
    reference = plan.reference(run)
    assert reference is not None  # a study with such an attack has one for every run
    why = _why_not_on_reference(rows[reference.id, attack.id, "infer"], plan.study.gate.max_mse_ratio)
    if here["failure"]:
        return Verdict(ok=False, broken=not why, why=here["failure"])
    if why:
        return Verdict(ok=False, why=why)
    if here["converged"] is False:
        return Verdict(ok=False, bound=True, why="had not converged: a larger budget would make it stronger")
    if here["converged"] is None and attack.trained:
        why = "its budget is too small to tell whether it had converged: give it at least 5 epochs (or steps)"
        return Verdict(ok=False, bound=True, why=why)
    return Verdict(ok=True)


def _why_not_on_reference(there: Row, max_ratio: float) -> str:
    """Why an attack with these scores on the undefended reference does not invert it; empty where it does."""
    if there["failure"]:
        return f"on the undefended reference: {there['failure']}"
    ratio = there["mse"] / there["mse_mean_image"] if there["mse_mean_image"] > 0 else float("inf")
    if ratio > max_ratio:
        return (
            f"does not invert the undefended reference: its MSE there is {ratio:.2f} of the mean image's; at most "
            f"{max_ratio:g} is allowed"
        )
    if there["mse"] >= there["mse_class_mean"]:
        return "does not beat the class's mean on the undefended reference"
    return ""
