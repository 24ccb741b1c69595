"""The small workflow of tests/cluster/workflow, in a folder of the test's own."""

import contextlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster import Cluster, hand_over, processes
from harness.head import Head
from harness.shims import Shims

SOURCE = Path(__file__).resolve().parents[1] / "workflow"

# The only place that names the executor and its settings.
PROFILE: dict[str, Any] = {
    "executor": "submitit",
    "submitit-cluster": "slurm",
    "submitit-poll": 1,
    "submitit-backoff": 1,
    "submitit-lost-after": 10,
    "submitit-signal-delay": 30,
    "jobs": 100,
    "local-cores": 1,
    "latency-wait": 15,
    "rerun-incomplete": True,
    "nolock": True,
    "default-resources": {"slurm_partition": "cpu", "slurm_account": "ci", "mem_mb": 100, "runtime": 5},
}


class Workflow:
    """Change `runs` and `profile` as you like: each head starts with what they say then.

    `runs`: name → options of workflow/scripts/train.py, and `partition`, `gpu`, `mem_mb`, `runtime`. `profile`: what
    Snakemake's profile holds.
    """

    def __init__(self, cluster: Cluster, folder: Path, shims: Shims) -> None:
        self.cluster, self.folder, self.shims = cluster, folder, shims
        self.runs: dict[str, dict[str, Any]] = {"a": {"epochs": 4}}
        self.profile = {**PROFILE}
        self.heads: list[Head] = []
        shutil.copytree(SOURCE, folder)
        self.write()

    def write(self) -> None:
        """Write runs.json and the profile. `head` does it; running heads' jobs read them too."""
        (self.folder / "profile").mkdir(exist_ok=True)
        (self.folder / "profile/config.yaml").write_text(yaml.safe_dump(self.profile))
        (self.folder / "runs.json").write_text(json.dumps(self.runs, indent=1))

    def head(self, *arguments: str, user: str | None = None, environment: Mapping[str, str] | None = None) -> Head:
        """Start Snakemake. As another user: the folder is given to them first."""
        self.write()
        hand_over(self.folder, user)
        log = self.folder.parent / f"head{len(self.heads)}.log"
        variables = {**self.shims.environment, **(environment or {})}
        words = ["--profile", "profile", *arguments]
        self.heads.append(Head(self.cluster, self.folder, *words, environment=variables, user=user, log=log))
        return self.heads[-1]

    def starts(self, run: str | None = None) -> list[dict[str, Any]]:
        """Every start of a training so far: run, epoch, job, restarts, gpus, node, pid (as its node counts), time."""
        return [row for row in _lines(self.folder / "starts.log") if run in (None, row["run"])]

    def wait_for_starts(self, count: int, timeout_s: float, run: str | None = None) -> list[dict[str, Any]]:
        """The starts, once there are so many."""
        what = f"{count} start(s) of {run or 'the runs'}"
        return self.cluster.wait_until(lambda: len(rows := self.starts(run)) >= count and rows, timeout_s, what)

    def epoch(self, run: str) -> int:
        """Of the state last saved; 0 before."""
        path = self.folder / f"state/{run}.json"
        return int(json.loads(path.read_text())["epoch"]) if path.exists() else 0

    def epochs(self, run: str) -> list[int]:
        """The epochs that were trained to their end, in this order: one that is there twice was trained twice."""
        rows = _lines(self.folder / "epochs.log")
        return [row["epoch"] for row in rows if row["run"] == run]

    def wait_for_epoch(self, run: str, epoch: int, timeout_s: float = 60) -> None:
        """Until a run has trained so far."""
        self.cluster.wait_until(lambda: epoch in self.epochs(run), timeout_s, f"epoch {epoch} of run {run}")

    def wait_for_training(self, run: str, timeout_s: float = 60) -> dict[str, Any]:
        """The first start of a run, once it has trained an epoch."""
        self.wait_for_epoch(run, 1, timeout_s)
        return self.starts(run)[0]

    def check_trained_once(self, *runs: str) -> None:
        """Each of these runs (default: all) has its model, for which every epoch was trained exactly once."""
        for run in runs or self.runs:
            count = self.runs[run].get("epochs", 4)
            model = self.folder / f"results/{run}/model.json"
            if self.epochs(run) != list(range(1, count + 1)) or not model.exists() or self.model(run)["epoch"] != count:
                there = "there" if model.exists() else "missing"
                pytest.fail(f"run {run}: {count} epochs wanted, trained {self.epochs(run)}, its model is {there}")

    def process(self, start: dict[str, Any]) -> int:
        """The pid, as this machine counts, of a training that runs; its node counts from 1."""
        for pid in processes(f"{self.folder}/.snakemake/scripts"):
            with contextlib.suppress(OSError):
                found = re.search(r"^NSpid:.*\b(\d+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
                if found and int(found.group(1)) == start["pid"]:
                    return pid
        pytest.fail(f"no process of {start}")

    def check_books(self, requeued: str = "") -> None:
        """Every run has one job that is done, by the books, the accounting and its own account; no other lives.

        Requeued: a run whose job was requeued as its controller went away. If the job was done by then, SLURM may
        restart it for no seconds, on no node, and call it FAILED: the books, which say done, are then to be trusted.
        """
        done: dict[str, str] = {}
        for record in self.books():
            for index, member in enumerate(record["members"]):
                job = record["job_id"] if len(record["members"]) == 1 else f"{record['job_id']}_{index}"
                repeated = done.get(member["outputs"][0]) if member["state"] == "done" else None
                if member["state"] == "open" or repeated:
                    pytest.fail(f"job {job} of {member['outputs']} is {member['state']}; done before: {repeated}")
                if member["state"] == "done":
                    done[member["outputs"][0]] = job
        jobs = {models(run)[0]: self.model(run)["job"] for run in self.runs}
        if done != jobs:
            pytest.fail(f"the books say {done}, the models {jobs}")
        self.cluster.wait_until(lambda: not self.cluster.squeue(), 90, "an empty queue")
        if self.cluster.accounting:
            wanted = {job: {"COMPLETED"} for job in jobs.values()}
            if requeued:
                wanted[jobs[models(requeued)[0]]] = {"COMPLETED", "FAILED"}
            self.cluster.wait_until(lambda: self._accounted(wanted), 30, "sacct to agree")

    def _accounted(self, wanted: dict[str, set[str]]) -> bool:
        """Whether each of these jobs is in the accounting, in one of its states."""
        states = {row["id"]: row["state"] for row in self.cluster.sacct(*wanted)}
        return states.keys() == wanted.keys() and all(states[job] in wanted[job] for job in wanted)

    def books(self) -> list[dict[str, Any]]:
        """The executor's records of its submissions, oldest first."""
        paths = (self.folder / ".snakemake/submitit/jobs").glob("*/record.json")
        return sorted((json.loads(path.read_text()) for path in paths), key=lambda record: record["submitted"])

    def jobs_of(self, rule: str) -> list[str]:
        """SLURM's ids of what was sent of a rule, oldest first."""
        return [
            record["job_id"] if len(record["members"]) == 1 else f"{record['job_id']}_{index}"
            for record in self.books()
            for index, member in enumerate(record["members"])
            if member["rule"] == rule
        ]

    def costs(self) -> list[dict[str, Any]]:
        """What the executor noted of the jobs' costs, one line a job."""
        return _lines(self.folder / ".snakemake/submitit/costs.jsonl")

    def model(self, run: str) -> dict[str, Any]:
        """What a finished training wrote: run, epoch, options, starts (epochs), signals, job, gpus, node."""
        content: dict[str, Any] = json.loads((self.folder / f"results/{run}/model.json").read_text())
        return content

    def end(self) -> None:
        for head in self.heads:
            head.end()


def models(*runs: str) -> list[str]:
    """Targets for Snakemake: these trainings alone, without what comes after them."""
    return [f"results/{run}/model.json" for run in runs]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
