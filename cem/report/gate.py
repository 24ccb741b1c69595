"""The gate: which attacks' numbers count.

An attack that cannot rebuild images where nothing hinders it says nothing about a defence. It must invert the
undefended reference of a run (same data, architecture, cut and training; no surrogate, no defence, σ = 0) at the same
budget: its MSE there is at most a part (`gate.max_mse_ratio`) of the mean image's, and below that of the class's mean.
On the run itself it must have converged. The mean image and the class's mean need no z: they are what it is held
against, and pass.
"""

from dataclasses import dataclass
from typing import Any

from cem.config import YARDSTICKS, Attack, Run
from cem.plan import Plan

Row = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """ok: the number counts. bound: the attack works but was still improving, so its MSE is an upper limit.

    why: what is wrong, empty when nothing is.
    """

    ok: bool
    bound: bool = False
    why: str = ""


def judge(plan: Plan, run: Run, attack: Attack, rows: dict[tuple[str, str, str], Row]) -> Verdict:
    """The verdict on an attack on a run. rows: (run id, attack id, scope) → its scores."""
    if attack.kind in YARDSTICKS:
        return Verdict(ok=True)
    here = rows[run.id, attack.id, "infer"]
    if here["failure"]:
        return Verdict(ok=False, why=here["failure"])
    reference = plan.reference(run)
    assert reference is not None  # a study with such an attack has one for every run
    there = rows[reference.id, attack.id, "infer"]
    if there["failure"]:
        return Verdict(ok=False, why=f"on the undefended reference: {there['failure']}")
    ratio = there["mse"] / there["mse_mean_image"] if there["mse_mean_image"] > 0 else float("inf")
    if ratio > plan.study.gate.max_mse_ratio:
        return Verdict(
            ok=False,
            why=f"does not invert the undefended reference: its MSE there is {ratio:.2f} of the mean image's; at most "
            f"{plan.study.gate.max_mse_ratio:g} is allowed",
        )
    if there["mse"] >= there["mse_class_mean"]:
        return Verdict(ok=False, why="does not beat the class's mean on the undefended reference")
    if here["converged"] is False:
        return Verdict(ok=False, bound=True, why="had not converged: a larger budget would make it stronger")
    return Verdict(ok=True)
