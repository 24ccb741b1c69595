"""What `cem status` says: how far each run is, what failed, what is left over, and whether the report is up to date."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cem.config import Run
from cem.planning.cluster import ClusterJobs
from cem.planning.plan import Plan
from cem.planning.status import RunStatus, State, Unfinished, newer_than_report, study_status, unfinished
from cem.planning.text import aligned
from cem.planning.workflow import RESULTS, report_command
from cem.report.verdicts import FAILED, FailedAttack, read_verdicts

STAGES = ("model", "activations", "leakage")  # of each run; its attacks follow


@dataclass(frozen=True)
class Status:
    """Of the study in a file. unread: damaged records of cluster jobs. newer: runs newer than the report."""

    plan: Plan
    file: Path
    runs: list[RunStatus]
    unfinished: list[Unfinished]
    orphans: list[Path]
    attacks: list[FailedAttack]
    cluster: ClusterJobs
    unread: list[str]
    newer: list[str]

    @classmethod
    def of(cls, plan: Plan, file: Path, cluster: ClusterJobs, unread: list[str]) -> "Status":
        """As it is now."""
        states, verdicts = study_status(plan), read_verdicts(plan)
        left = (unfinished(plan), plan.orphans())
        return cls(plan, file, states, *left, verdicts, cluster, unread, newer_than_report(plan))

    @property
    def failed(self) -> bool:
        """Whether a run failed, or an attack that is trained did."""
        attacks = any(one.mark == FAILED and one.attack in self.plan.learned for one in self.attacks)
        return attacks or any(one.state == State.FAILED for one in self.runs)

    @property
    def ended(self) -> bool:
        """Whether no run is waiting or running."""
        return not any(one.state in (State.WAITING, State.RUNNING) for one in self.runs)

    @property
    def elsewhere(self) -> Path | None:
        """The folder of the study's file, or above it, that has results of the study; None where this folder has some,
        or another place was named."""
        if self.plan.root != RESULTS or self.plan.folder.is_dir():
            return None
        above = self.file.resolve().parents
        return next((folder for folder in above if (folder / self.plan.folder).is_dir()), None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        report = str(self.plan.report) if self.plan.report.is_file() else None
        return {
            "study": self.plan.study.name,
            "failed": self.failed,
            "done": {
                "runs": {"done": self._ended(), "of": len(self.runs)},
                **self._by_name([{"done": done, "of": of} for done, of in self._counts()]),
            },
            "runs": [asdict(one) | self._by_name(self._done[one.run]) for one in self.runs],
            "attacks": [asdict(one) for one in self.attacks],
            "unfinished": [
                {
                    "folder": str(one.folder),
                    "makes": str(one.makes),
                    "alive": one.alive,
                    "planned": self.plan.plans(one.makes),
                }
                for one in self.unfinished
            ],
            "orphans": [{"path": str(path), "why": self._why(path)} for path in self.orphans],
            "cluster": {
                "open": self.cluster.open,
                "failed": [asdict(job) for job in self.cluster.failed],
                "unread": self.unread,
            },
            "report": {"path": report, "older_than": self.newer},
            "elsewhere": None if self.elsewhere is None else str(self.elsewhere),
        }

    def text(self) -> str:
        """For people."""
        told = [*self._runs(), *self._left_over(), *self._cluster(), *self._attacks(), self._report()]
        if self.elsewhere is not None:
            folder = shlex.quote(str(self.elsewhere))
            told.append(
                f"results of this study: none here, but there are some in {self.elsewhere / RESULTS}: cd {folder}"
            )
        return "\n".join([self._table(), *told])

    @cached_property
    def _done(self) -> dict[str, list[bool | None]]:
        """Run → whether each stage, then each attack, is done; None for an attack that it is not scored by."""
        attacks = [attack.id for attack in self.plan.study.attacks]
        return {name: _stages(self.plan, name, run, attacks) for name, run in self.plan.runs.items()}

    def _counts(self) -> list[tuple[int, int]]:
        """How many runs have each stage, then each attack, of how many."""
        columns = [
            [ready for ready in column if ready is not None] for column in zip(*self._done.values(), strict=True)
        ]
        return [(sum(column), len(column)) for column in columns]

    def _ended(self) -> int:
        return sum(one.state in (State.DONE, State.CHANGED) for one in self.runs)

    def _by_name(self, values: Sequence[Any]) -> dict[str, dict[str, Any]]:
        """What is known of each stage, then each attack, by name."""
        attacks = [attack.id for attack in self.plan.study.attacks]
        return {
            "stages": dict(zip(STAGES, values, strict=False)),
            "attacks": dict(zip(attacks, values[len(STAGES) :], strict=True)),
        }

    def _table(self) -> str:
        """Which stages of each run are done."""
        words = {True: "done", False: "-", None: ""}
        marks = [(one.run, str(one.state), *(words[ready] for ready in self._done[one.run])) for one in self.runs]
        counts = [f"{done}/{of}" for done, of in self._counts()]
        total = ("all", f"{self._ended()}/{len(self.runs)}", *counts)
        return aligned([("run", "state", *STAGES, *(one.id for one in self.plan.study.attacks)), *marks, total])

    def _runs(self) -> list[str]:
        """What there is to say of runs beyond their state."""
        lines = []
        for one in self.runs:
            if one.state not in (State.DONE, State.WAITING):
                lines.append(f"{one.run}: {one.text}")
            if one.state == State.FAILED:
                lines.append(f"  log: {one.log}")
        return lines

    def _left_over(self) -> list[str]:
        orphans = [f"orphan: {path} ({self._why(path)}, so in no table; may be deleted)" for path in self.orphans]
        return orphans + [f"unfinished: {one.makes} ({self._goes_on(one)}: {one.folder})" for one in self.unfinished]

    def _why(self, orphan: Path) -> str:
        now = self.plan.renamed(orphan)
        return f"made by an earlier version, and now called {now}" if now else "not in this study"

    def _goes_on(self, one: Unfinished) -> str:
        if one.alive:
            return "running now"
        planned = self.plan.plans(one.makes)
        return (
            "the next run goes on from" if planned else "not in this study, so nothing goes on from it; may be deleted"
        )

    def _cluster(self) -> list[str]:
        lines = []
        for job in self.cluster.failed:
            lines.append(
                f"failed on the cluster: {job.rule} of {job.run} on {job.node}, attempt {job.attempt}: {job.cause}"
            )
            lines.append(f"  log: {job.log}")
        if self.cluster.open:
            what = "waiting, running, or left by a head that ended: run it again"
            lines.append(f"open on the cluster: {self.cluster.open} ({what})")
        return lines + [f"record not read: {text}" for text in self.unread]

    def _attacks(self) -> list[str]:
        """Which attacks do not count by the results as they are now; one reason on several runs is one line."""
        runs: dict[tuple[str, str, str], list[str]] = {}
        for one in self.attacks:
            runs.setdefault((one.mark, one.attack, one.why.removeprefix("weak: ")), []).append(one.run)
        lines = []
        for (mark, attack, why), names in runs.items():
            where = names if mark == FAILED or len(names) == 1 else [f"{len(names)} runs"]
            lines += [f"{mark}: {attack} on {name}: {why}" for name in where]
        return lines

    def _report(self) -> str:
        path = self.plan.report
        if not path.is_file():
            return "report: not made yet"
        again = report_command(self.file, self.plan.root)
        older = f" (older than the results of {len(self.newer)} runs: run the workflow, or {again})"
        return f"report: {path}" + (older if self.newer else "")


def _stages(plan: Plan, name: str, run: Run, attacks: list[str]) -> list[bool | None]:
    """Whether each stage is done; None for an attack that this run is not scored by."""
    folder, own = plan.folder / "runs" / name, {attack.id for attack in plan.attacks(run)}
    done: list[bool | None] = [
        path.is_file() for path in (folder / "model.safetensors", folder / "activations.h5", plan.leakage(run))
    ]
    scores = [(folder / "attacks" / attack / "metrics.parquet").is_file() for attack in attacks]
    return done + [ready if attack in own else None for attack, ready in zip(attacks, scores, strict=True)]
