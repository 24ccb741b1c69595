"""What became of a study's jobs on a cluster, read from the records that the executor keeps beside the study.

The format, one `record.json` a submission below .snakemake/submitit/jobs: `version` (1), `job_id` (null until there is
one), `submitted` (seconds), `members`: each with `rule`, `outputs`, `attempt`, `state` (open, done, failed, retried,
cancelled), `cause`, `node` and `log`.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cem.planning.plan import ATTACK_FILES, Plan

VERSION = 1
RECORDS = Path(".snakemake/submitit/jobs")


@dataclass(frozen=True)
class ClusterJob:
    """A job as its record has it, and the run or warm-up it belongs to; `-` for what all runs share."""

    rule: str
    run: str
    outputs: tuple[str, ...]
    attempt: int
    state: str
    cause: str
    node: str
    log: str


@dataclass
class ClusterJobs:
    """The failures of a study that are still to be mended, how many of its jobs are open, and what was not readable."""

    failed: list[ClusterJob] = field(default_factory=list)
    open: int = 0
    unreadable: list[str] = field(default_factory=list)


def read_cluster_jobs(plan: Plan, records: Path = RECORDS) -> ClusterJobs:
    """What the records say of the jobs that make this study's files: the last of each counts.

    A failure is told while one of its files is absent.
    """
    found, owners = ClusterJobs(), _owners(plan)
    submissions = []
    for path in sorted(records.glob("*/record.json")):
        try:
            submissions.append(_read(path))
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            found.unreadable.append(f"{path}: {_reason(error)}")
    latest: dict[tuple[str, ...], ClusterJob] = {}
    for _, members in sorted(submissions, key=lambda one: one[0]):
        for member in members:
            outputs = tuple(sorted(str(output) for output in member["outputs"]))
            owner = next((owners[where] for output in outputs if (where := _absolute(output)) in owners), None)
            if owner is not None:
                latest[outputs] = _job(member, owner, outputs)
    found.open = sum(job.state == "open" for job in latest.values())
    found.failed = [
        job
        for job in latest.values()
        if job.state == "failed" and not all(Path(output).exists() for output in job.outputs)
    ]
    return found


class _OtherVersionError(ValueError):
    """A record that a newer or older executor wrote."""


def _read(path: Path) -> tuple[float, list[dict[str, Any]]]:
    """When a submission was made, and its members. Raises an error on whatever is not as expected."""
    content = json.loads(path.read_text(encoding="utf-8"))
    if content["version"] != VERSION:
        raise _OtherVersionError(f"expected version {VERSION}, found {content['version']!r}")
    members = content["members"]
    for member in members:
        if not isinstance(member["outputs"], list) or not isinstance(member["state"], str):
            raise TypeError
        int(member["attempt"])
    return float(content["submitted"]), members


def _reason(error: Exception) -> str:
    if isinstance(error, _OtherVersionError | OSError):
        return str(error)
    return f"expected a record of version {VERSION}, found something else ({type(error).__name__})"


def _job(member: dict[str, Any], owner: str, outputs: tuple[str, ...]) -> ClusterJob:
    texts = {name: str(member.get(name) or "-") for name in ("rule", "cause", "node", "log")}
    return ClusterJob(run=owner, outputs=outputs, attempt=int(member["attempt"]), state=member["state"], **texts)


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
