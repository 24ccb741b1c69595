"""Real trainings and attacks that were interrupted end with the same bytes as undisturbed ones."""

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

import pandas as pd
import pytest
from harness import Head, Study, is_amid_an_epoch

from cem.config import parse_study
from cem.planning.plan import Plan

SETTINGS: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"source": "synthetic", "images": 3000, "classes": 4, "channels": 1},
    "model": {"width": 0.05, "bottleneck": "noRELU_C4S1"},
    "training": {"epochs": 7, "warmup_epochs": 1, "batch_size": 32, "lr": 0.02},
    "attacks": [{"kind": "decoder", "net": "res_normN0C4", "epochs": 8, "batch_size": 32, "lr": 1e-3}],
    "surrogates": [{"kind": "gmm", "weight": 0.5}, {"kind": "attention", "slots": 2}],
}
COUNTED = ["seconds", "images_per_s", "peak_memory_mb"]  # columns of history.csv that tell of the machine
SAVED, KILLED, EITHER = {"saved"}, {"killed"}, {"saved", "killed"}


@dataclass
class Fault:
    """What is done to a job during an epoch of its `start`-th start or a later one, and how that start may then end.

    met: the start that it met.
    """

    rule: str
    run: str
    kind: str
    ends: set[str]
    start: int = 1
    met: int = 0


class BrokenStudy(Study):
    """A study whose jobs meet faults."""

    def __init__(self, cluster, folder: Path, settings: dict[str, Any]) -> None:
        super().__init__(cluster, folder, settings)
        self.plan = Plan(parse_study(settings, "the test's study"))
        self.ids = {run.surrogate.kind: run.id for run in self.plan.asked.values()}
        self.attack = self.plan.learned[0]
        self.repairs: list[Thread] = []

    @property
    def targets(self) -> list[str]:
        """Every run's training and attack, and nothing else."""
        return [self.output("attack", run, "metrics.parquet") for run in self.ids]

    def output(self, rule: str, run: str, name: str) -> str:
        folder = f"results/tiny/runs/{self.ids[run]}"
        return f"{folder}/{name}" if rule == "train" else f"{folder}/attacks/{self.attack}/{name}"

    def record(self, rule: str, run: str) -> dict[str, Any]:
        """train.json or attack.json."""
        return json.loads((self.folder / self.output(rule, run, f"{rule}.json")).read_text())

    def break_off(self, head: Head, faults: list[Fault], timeout_s: float = 900) -> None:
        """Let each job meet its fault; ends with the last of them."""
        end, waiting = time.monotonic() + timeout_s, list(faults)
        while waiting:
            assert head.alive, f"over before {waiting}"
            assert time.monotonic() < end, f"not yet: {waiting}"
            scripts = self.scripts()
            for fault in list(waiting):
                log = "train" if fault.rule == "train" else f"attack-{self.attack}"
                pid = scripts.get(f"logs/tiny/{self.ids[fault.run]}/{log}.log")
                state = None if pid is None else self.state_of(pid)
                if state is not None and is_amid_an_epoch(state):
                    started = len(json.loads((state / "attempts.json").read_text()))
                    if started >= fault.start:
                        fault.met = started
                        self.let_happen(fault, pid)
                        waiting.remove(fault)
                        break  # another of them may have been hit as well
            time.sleep(0.1)
        for repair in self.repairs:
            repair.join()

    def let_happen(self, fault: Fault, pid: int) -> None:
        job = self.job_of(self.output(fault.rule, fault.run, f"{fault.rule}.json"))
        if fault.kind == "SIGUSR2":
            self.cluster.run("scancel", "--signal=USR2", job)
        elif fault.kind == "requeue":
            self.cluster.run("scontrol", "requeue", job)
        elif fault.kind == "SIGKILL":
            os.kill(pid, signal.SIGKILL)
        elif fault.kind == "preemption":
            self.cluster.submit("sleep 1", "-purgent", "--gpus-per-node=2", f"-w{self.node_of(job)}")
        else:
            node = self.node_of(job)
            self.cluster.power_cut(node)
            self.repairs.append(Thread(target=self.cluster.power_on, args=(node,)))  # takes seconds, in which jobs end
            self.repairs[-1].start()

    def check_equal(self, undisturbed: "BrokenStudy") -> None:
        """The same weights, scores and histories, byte for byte."""
        for run in self.ids:
            for rule, name in (("train", "model.safetensors"), ("attack", "metrics.parquet")):
                path = self.output(rule, run, name)
                assert (self.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes(), path
            path = self.output("train", run, "history.csv")
            mine, theirs = (pd.read_csv(study.folder / path, dtype=str) for study in (self, undisturbed))
            assert len(mine) == self.plan.study.training.epochs
            pd.testing.assert_frame_equal(mine.drop(columns=COUNTED), theirs.drop(columns=COUNTED))

    def check_record(self, fault: Fault) -> None:
        """The start that met the fault is on record with how it ended, and what it lost."""
        record = self.record(fault.rule, fault.run)
        attempts = record["attempts"]
        assert len(attempts) > fault.met, fault
        assert attempts[fault.met - 1]["ended"] in fault.ends, (fault, attempts)
        assert attempts[-1]["ended"] == "done"
        assert record["lost_seconds"] == sum(attempt["lost_seconds"] for attempt in attempts)
        costs = record["costs"]  # the executor's, of the same starts and of any that came to nothing
        assert len(costs) >= len(attempts)
        assert {cost["source"] for cost in costs} == {self.cluster.cost_source}
        assert [cost["lost"] for cost in costs] == [True] * (len(costs) - 1) + [False]
        for attempt in attempts:
            assert (attempt["cpu_seconds"] is None) == (attempt["ended"] == "killed")
            assert 0 <= attempt["lost_seconds"] <= attempt["seconds"]
            assert attempt["node"]
        if fault.kind == "SIGUSR2":
            assert attempts[fault.met - 1]["lost_seconds"] < 0.5  # saved where it was, during the epoch


@pytest.fixture
def make_study(cluster, tmp_path) -> Iterator[Any]:
    made = []

    def make(name: str, settings: dict[str, Any]) -> BrokenStudy:
        made.append(BrokenStudy(cluster, tmp_path / name, settings))
        return made[-1]

    yield make
    for study in made:
        study.end()


def test_whatever_breaks_them_off_trainings_and_attacks_end_with_the_same_bytes(make_study) -> None:
    """Each job has a node to itself, so that what happens to the node happens to no other job."""
    faults = [
        Fault("train", "gmm", "SIGKILL", KILLED),
        Fault("train", "gmm", "preemption", EITHER, start=2),
        Fault("train", "attention", "SIGUSR2", SAVED),
        Fault("train", "attention", "power cut", KILLED, start=2),
        Fault("train", "attention", "requeue", EITHER, start=3),
        Fault("attack", "gmm", "SIGUSR2", SAVED),
        Fault("attack", "gmm", "SIGKILL", KILLED, start=2),
        Fault("attack", "gmm", "preemption", EITHER, start=3),
        Fault("attack", "attention", "power cut", KILLED),
        Fault("attack", "attention", "requeue", EITHER, start=2),
    ]
    undisturbed, study = make_study("undisturbed", SETTINGS), make_study("broken", SETTINGS)
    reference = undisturbed.on_this_machine(*undisturbed.targets)
    head = study.on_the_cluster(*study.targets, memory_mb=3500)
    study.break_off(head, faults)
    assert head.wait(600) == 0, head.tail()
    assert reference.wait(600) == 0, reference.tail()
    study.check_equal(undisturbed)
    for fault in faults:
        study.check_record(fault)
    jobs = [(rule, run) for rule in ("train", "attack") for run in study.ids]
    starts = {(fault.rule, fault.run): fault.met + 1 for fault in faults}  # the last one of each job's counts
    assert {job: len(study.record(*job)["attempts"]) for job in jobs} == starts
    assert sum(study.record(*job)["lost_seconds"] for job in jobs) > 0
    assert all(undisturbed.record(*job)["lost_seconds"] == 0 for job in jobs)


@pytest.mark.slow
def test_whoever_meets_the_time_limit_again_and_again_ends_with_the_same_bytes(make_study) -> None:
    """A limit of a minute is announced 30 to 60 s ahead: a start has half a minute at most, often less."""
    settings = SETTINGS | {
        "training": SETTINGS["training"] | {"epochs": 36},
        "attacks": [SETTINGS["attacks"][0] | {"epochs": 40}],
        "surrogates": [{"kind": "attention", "slots": 2}],
    }
    undisturbed, study = make_study("undisturbed", settings), make_study("limited", settings)
    reference = undisturbed.on_this_machine(*undisturbed.targets)
    head = study.on_the_cluster(*study.targets, more=["train:runtime=1", "attack:runtime=1"])
    assert head.wait(2400) == 0, head.tail()
    assert "lost after its start" not in head.output()  # what is done in the time that is given for saving is done
    assert reference.wait(600) == 0, reference.tail()
    study.check_equal(undisturbed)
    for rule, least in (("train", 4), ("attack", 2)):
        attempts = study.record(rule, "attention")["attempts"]
        assert len(attempts) >= least
        assert [attempt["ended"] for attempt in attempts] == ["saved"] * (len(attempts) - 1) + ["done"]
