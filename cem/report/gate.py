"""The gate: which attacks' numbers count.

An attack that cannot rebuild images where nothing hinders it says nothing about a defence. It must invert the
undefended references of a run (same data, architecture, cut and training; no surrogate, no defence, σ = 0; every seed
of the study) at the same budget: its MSE there is at most a part (`gate.max_mse_ratio`) of the mean image's, and below
that of the class's mean, and both by the upper end of the 95 % interval over the seeds. It must be strong there, too:
close to the best of all that an attacker of its knowledge could have run (`gate.max_over_best`). On the run itself it
must have converged, as far as its fit can tell.

Of a network that is given without undefended weights there is no gate: what an attack rebuilds there is rebuilt, and
more may be possible. The mean image and the class's mean need no z: they are what it is held
against, and pass.
"""

import math
from dataclasses import dataclass, field
from typing import Any

from cem.config import AttackSettings, Run
from cem.planning.plan import Plan
from cem.report.statistics import Estimate, over_seeds
from cem.report.threat import ThreatModel

Row = dict[str, Any]
Rows = dict[tuple[str, str, str], Row]  # run id, attack id, scope → its scores
UNTOLD = "its budget is too small to tell whether it had converged: give it at least 5 epochs (or steps)"
UNJUDGED = (
    "nobody knows how strong it is: the network is given, without undefended weights to show that on; a weak"
    " attack cannot be told from a strong defence"
)
ALONE = (
    "no fitted attack of the same knowledge stands beside it, so that nothing says how far such an attacker comes: add "
    "a decoder, or take a panel"
)


@dataclass(frozen=True)
class Verdict:
    """ok: the number counts. bound: the attack works but may do better, so that its MSE is an upper limit.

    weak: it works, but others are known to do better, or nothing is known of what others would do: it stands for no
    attacker. broken: the attack works on the references, and its fit broke down here: what it would reach is not known.
    why: what is wrong, empty when nothing is.
    """

    ok: bool
    bound: bool = False
    weak: bool = False
    broken: bool = False
    why: str = ""


@dataclass(frozen=True)
class Gate:
    """The verdicts on a study's attacks. What the references say is worked out once for each attack."""

    plan: Plan
    rows: Rows
    _known: dict[tuple[str, ...], tuple[Verdict, str]] = field(default_factory=dict)

    def judge(self, run: Run, attack: AttackSettings) -> Verdict:
        """The verdict on an attack on a run."""
        if attack.yardstick:
            return Verdict(ok=True)
        here = self.rows[run.id, attack.id, "infer"]
        if not self.plan.undefended(run):
            return Verdict(ok=False, bound=not here["failure"], why=here["failure"] or UNJUDGED)
        gate, weakness = self._there(self.plan.undefended(run), attack)
        if here["failure"]:
            return Verdict(ok=False, broken=gate.ok or gate.bound, why=here["failure"])
        if not gate.ok and not gate.bound:
            return gate
        if here["converged"] is None and attack.trained:
            weakness = weakness or UNTOLD
        if weakness:
            return Verdict(ok=False, weak=True, why=f"weak: {weakness}")
        if not gate.ok:
            return gate
        if here["converged"] is False:
            return Verdict(ok=False, bound=True, why="had not converged: a larger budget would make it stronger")
        return Verdict(ok=True)

    def _there(self, references: list[Run], attack: AttackSettings) -> tuple[Verdict, str]:
        """Whether an attack inverts these references, and why it is weak there; empty: it is not."""
        key = (attack.id, *(run.id for run in references))
        if key not in self._known:
            there = [row for run in references if (row := self.rows.get((run.id, attack.id, "infer"))) is not None]
            gate = _on_references(there, references, self.plan.study.gate.max_mse_ratio)
            self._known[key] = gate, self._weakness(references, attack) if references else ""
        return self._known[key]

    def _weakness(self, references: list[Run], attack: AttackSettings) -> str:
        """How far an attack is behind the best that its attacker could run there; empty: not far.

        Each is held against the mean image on the images that it was scored on, and compared on the references that
        both have a result of.
        """
        mine = ThreatModel.of(attack)
        peers = [one for one in self.plan.study.attacks if not one.yardstick and mine.includes(ThreatModel.of(one))]
        equals = [one for one in peers if ThreatModel.of(one).includes(mine)]
        if not any(one.trained and self._inverts(references, one) for one in equals):
            return ALONE
        own, most = self._parts(references, attack), 1 + self.plan.study.gate.max_over_best
        found = [(_behind(own, self._parts(references, one)), one.id) for one in peers if one is not attack]
        times, best = max(found, default=(0.0, ""))
        if times <= most:
            return ""
        return (
            f"on the undefended reference its MSE is {times:.2f} times that of {best}, which an attacker who knows as "
            f"much can run; at most {most:g} times is allowed"
        )

    def _inverts(self, references: list[Run], attack: AttackSettings) -> bool:
        """Whether an attack works on the references, as far as is known: one that failed says how far nobody comes."""
        there = [row for run in references if (row := self.rows.get((run.id, attack.id, "infer"))) is not None]
        found = _on_references(there, references, self.plan.study.gate.max_mse_ratio)
        return found.ok or found.bound

    def _parts(self, references: list[Run], attack: AttackSettings) -> dict[str, float]:
        """Reference → the attack's MSE there, in parts of the mean image's."""
        found = {run.id: self.rows.get((run.id, attack.id, "infer")) for run in references}
        return {name: _ratio(row) for name, row in found.items() if row is not None and not row["failure"]}


def _behind(mine: dict[str, float], other: dict[str, float]) -> float:
    """How many times the error of another attack one's own is, in the mean over the references that both are scored on.

    0 where there are none: then nothing is known.
    """
    shared = mine.keys() & other.keys()
    own, best = (sum(errors[name] for name in sorted(shared)) for errors in (mine, other))
    if not shared or own == 0:
        return 0.0
    return own / best if best > 0 else math.inf


def _on_references(there: list[Row], references: list[Run], max_ratio: float) -> Verdict:
    """Whether an attack with these scores, a row per seed, inverts the undefended references.

    bound: in the mean, but not surely: what it rebuilds elsewhere is rebuilt, and more may be possible.
    """
    # Seeds of weights that are named repeat the attack; of trainings they are other networks.
    named = all(run.model.fixed and not run.trained for run in references)
    called = "repetitions on one network" if named else "seeds"
    found = _on_those(there, max_ratio, called) if there else Verdict(ok=True)
    planned = len(references)
    if found.ok and len(there) < planned:
        why = f"has no result yet on {planned - len(there)} of the {planned} undefended references that it must invert"
        return Verdict(ok=False, bound=True, why=why)
    return found


def _on_those(there: list[Row], max_ratio: float, called: str) -> Verdict:
    """called: what the rows are that the interval is over."""
    failures = [row for row in there if row["failure"]]
    if failures:
        seeds = f" ({len(failures)} of {len(there)} {called})" if len(there) > 1 else ""
        why = f"on the undefended reference{seeds}: {failures[0]['failure']}"
        return Verdict(ok=False, bound=len(failures) < len(there), why=why)
    ratio = over_seeds(_ratio(row) for row in there)
    if (above := _above(ratio, max_ratio, called)) is not None:
        sure, text = above
        how = "does not invert the undefended reference" if sure else "does not surely invert the undefended reference"
        why = f"{how}: its MSE there is {text}; at most {max_ratio:g} is allowed"
        return Verdict(ok=False, bound=not sure, why=why)
    if any(math.isnan(row["mse_class_mean"]) for row in there):
        return Verdict(ok=True)  # by identity: the attacker has images of no class that is scored
    margin = over_seeds(row["mse"] - row["mse_class_mean"] for row in there)
    if margin.mean >= 0:
        return Verdict(ok=False, why="does not beat the class's mean on the undefended reference")
    if margin.high >= 0:
        why = (
            f"does not surely beat the class's mean on the undefended reference: the interval over {called} reaches it"
        )
        return Verdict(ok=False, bound=True, why=why)
    return Verdict(ok=True)


def _ratio(row: Row) -> float:
    return float(row["mse"] / row["mse_mean_image"]) if row["mse_mean_image"] > 0 else math.inf


def _above(ratio: Estimate, most: float, called: str) -> tuple[bool, str] | None:
    """Whether a ratio is above what is allowed surely (in the mean), and the ratio in words; None: it is not."""
    text = f"{ratio.mean:.2f} of the mean image's"
    if not math.isnan(ratio.half):
        text += f" (up to {ratio.high:.2f} by its interval over {ratio.n} {called})"
    if ratio.mean > most:
        return True, text
    return (False, text) if ratio.high > most else None
