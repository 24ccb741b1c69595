"""A real study: this project's Snakefile and profiles, in a folder of the test's own."""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cluster import ROOT, Cluster, processes
from harness.head import Head

RULES = ("fit_evaluator", "warm_up", "train", "extract_activations", "fit_mixture", "baseline_attacks", "attack")
SITE = (
    *("--submitit-account", "ci", "--submitit-partition", "cpu", "--submitit-gpu-partition", "gpu"),
    *("--submitit-poll", "1", "--submitit-backoff", "1", "--submitit-signal-delay", "30"),
)


class Study:
    """Started with profiles/local or profiles/slurm; its heads' output goes beside its folder."""

    def __init__(self, cluster: Cluster, folder: Path, settings: dict[str, Any]) -> None:
        self.cluster, self.folder, self.heads = cluster, folder, list[Head]()
        (folder / "config").mkdir(parents=True)
        (folder / "config/config.yaml").write_text(yaml.safe_dump(settings))

    def on_this_machine(self, *arguments: str) -> Head:
        """A head that runs all jobs itself."""
        return self.start("local", "--cores", "2", *arguments)

    def on_the_cluster(self, *arguments: str, memory_mb: int = 1500, more: Sequence[str] = ()) -> Head:
        """A head that sends them to the cluster, whose nodes have 4 GB. more: other resources, rule:name=value."""
        memory = [f"{rule}:mem_mb={memory_mb}" for rule in RULES]
        return self.start("slurm", *SITE, *arguments, "--set-resources", *memory, *more)

    def start(self, profile: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Head:
        """A head with one of the project's profiles."""
        log = self.folder.parent / f"{self.folder.name}-{len(self.heads)}.log"
        words = ["--snakefile", str(ROOT / "Snakefile"), "--profile", str(ROOT / f"profiles/{profile}"), *arguments]
        self.heads.append(Head(self.cluster, self.folder, *words, environment=environment, log=log))
        return self.heads[-1]

    def job_of(self, output: str) -> str:
        """SLURM's id of the last job that was sent to make this file."""
        records = [json.loads(path.read_text()) for path in self.folder.glob(".snakemake/submitit/jobs/*/record.json")]
        for record in sorted(records, key=lambda one: one["submitted"], reverse=True):
            for index, member in enumerate(record["members"]):
                if output in member["outputs"]:
                    return record["job_id"] if len(record["members"]) == 1 else f"{record['job_id']}_{index}"
        pytest.fail(f"no job makes {output}")

    def node_of(self, job: str) -> str:
        """The node where a job runs now; empty where it does not."""
        return next((row["node"] for row in self.cluster.squeue() if row["id"] == job), "")

    def scripts(self) -> dict[str, int]:
        """The scripts that run now, on whatever node: their logs → their pids, as this machine counts."""
        found = {}
        for pid in processes(f"{self.folder}/.snakemake/scripts"):
            with contextlib.suppress(OSError, ValueError):
                found[str(Path(f"/proc/{pid}/fd/2").readlink().relative_to(self.folder))] = pid
        return found

    def state_of(self, pid: int) -> Path | None:
        """The folder in results/.state that a script holds."""
        with contextlib.suppress(OSError):
            for file in Path(f"/proc/{pid}/fd").iterdir():
                if (target := file.readlink()).name == "lock" and target.is_relative_to(self.folder / "results/.state"):
                    return target.parent
        return None

    def end(self) -> None:
        for head in self.heads:
            head.end()


def is_amid_an_epoch(state: Path) -> bool:
    """Whether a job has saved its state in its present start, and has worked since: that is lost if it dies now."""
    with contextlib.suppress(OSError):
        began = (state / "attempts.json").stat().st_mtime
        saved = max((part.stat().st_mtime for part in state.glob("state*.safetensors")), default=0.0)
        return began < saved < time.time() - 0.2
    return False
