"""The small workflow of tests/cluster/workflow, in a folder of the test's own."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from harness.cluster import Cluster, hand_over
from harness.head import Head
from harness.shims import Shims

SOURCE = Path(__file__).resolve().parents[1] / "workflow"

# The only place that names the executor and its settings.
PROFILE: dict[str, Any] = {
    "executor": "submitit",
    "submitit-cluster": "slurm",
    "submitit-poll": 1,
    "submitit-signal-delay": 30,
    "submitit-save-time": 20,
    "jobs": 100,
    "local-cores": 1,
    "latency-wait": 15,
    "rerun-incomplete": True,
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
        path = self.folder / "starts.log"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [row for row in rows if run in (None, row["run"])]

    def wait_for_starts(self, count: int, timeout_s: float, run: str | None = None) -> list[dict[str, Any]]:
        """The starts, once there are so many."""
        what = f"{count} start(s) of {run or 'the runs'}"
        return self.cluster.wait_until(lambda: len(rows := self.starts(run)) >= count and rows, timeout_s, what)

    def epoch(self, run: str) -> int:
        """Of the state last saved; 0 before."""
        path = self.folder / f"state/{run}.json"
        return int(json.loads(path.read_text())["epoch"]) if path.exists() else 0

    def model(self, run: str) -> dict[str, Any]:
        """What a finished training wrote: run, epoch, options, starts (epochs), signals, job, gpus, node."""
        content: dict[str, Any] = json.loads((self.folder / f"results/{run}/model.json").read_text())
        return content

    def end(self) -> None:
        for head in self.heads:
            head.end()
