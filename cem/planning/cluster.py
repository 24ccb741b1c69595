"""What became of a study's jobs on a cluster: the executor's records, joined with the files that a study plans."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from cem.planning.plan import ATTACK_FILES, Plan


@runtime_checkable
class Record(Protocol):
    """A job as the executor has it on record. state: open, done, failed, retried or cancelled."""

    @property
    def rule(self) -> str: ...
    @property
    def outputs(self) -> Sequence[str]: ...
    @property
    def attempt(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def cause(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def log(self) -> str: ...


@dataclass(frozen=True)
class ClusterJob:
    """A job that failed, and the run or warm-up it belongs to; `-` for what all runs share, and for what is unknown."""

    rule: str
    run: str
    attempt: int
    cause: str
    node: str
    log: str


@dataclass
class ClusterJobs:
    """The failures of a study whose files are still absent, and how many of its jobs are open."""

    failed: list[ClusterJob] = field(default_factory=list)
    open: int = 0


def find_cluster_jobs(plan: Plan, records: Iterable[Record]) -> ClusterJobs:
    """What the records, oldest first, say of the jobs that make this study's files: the last of each counts.

    A failure is told while one of its files is absent.
    """
    owners = _owners(plan)
    latest: dict[tuple[str, ...], tuple[str, Record]] = {}
    for record in records:
        outputs = tuple(sorted(record.outputs))
        owner = next((owners[where] for output in outputs if (where := _absolute(output)) in owners), None)
        if owner is not None:
            latest[outputs] = owner, record
    found = ClusterJobs(open=sum(record.state == "open" for _, record in latest.values()))
    for outputs, (owner, record) in latest.items():
        if record.state == "failed" and not all(Path(output).exists() for output in outputs):
            texts = [text or "-" for text in (record.cause, record.node, record.log)]
            found.failed.append(ClusterJob(record.rule or "-", owner, record.attempt, *texts))
    return found


def _owners(plan: Plan) -> dict[str, str]:
    """Every file the study plans → the run or warm-up it belongs to."""
    owners = {_absolute(plan.data(dataset)): "-" for dataset in plan.datasets.values()}
    owners |= {_absolute(plan.folder / name): "-" for name in ("results.parquet", "results.csv", "runs.csv")}
    owners[_absolute(plan.report)] = "-"
    names = ["model.safetensors", "history.csv", "train.json", "activations.h5"]
    names += [f"mixture-{label}.h5" for label in plan.mixtures]
    for where in plan.trained:
        owners |= {_absolute(plan.folder / where / name): where.removeprefix("runs/") for name in names}
    for run in plan.runs.values():
        for attack in plan.attacks(run):
            owners |= {_absolute(plan.attack(run, attack.id) / name): run.id for name in ATTACK_FILES}
    return owners


def _absolute(path: Path | str) -> str:
    return str(Path(path).absolute())
