"""The workflow and the head of the fault tests, on Snakemake's own executor."""

import os
import signal
import time

import pytest
from harness import USER, processes


@pytest.fixture
def local(workflow):
    """The workflow, its jobs run by the head itself."""
    workflow.profile = {"cores": 2}
    workflow.runs = {"a": {"epochs": 2, "epoch_s": 0.1}, "b": {"epochs": 3, "epoch_s": 0.1}}
    return workflow


def test_every_run_trains_once_and_an_edited_one_again(local) -> None:
    assert local.head().wait(60) == 0
    assert sorted((start["run"], start["epoch"]) for start in local.starts()) == [("a", 0), ("b", 0)]
    local.runs["b"]["epochs"] = 4
    local.runs["a"]["mem_mb"] = 50
    assert local.head().wait(60) == 0
    assert [len(local.starts(run)) for run in "ab"] == [1, 2]
    assert local.model("b")["epoch"] == 4
    assert (local.folder / "results/report.txt").read_text().count("run") == 2


@pytest.mark.parametrize("signum", [signal.SIGUSR2, signal.SIGTERM])
def test_a_signalled_training_saves_and_goes_on_in_its_next_start(local, signum) -> None:
    local.runs = {"a": {"epochs": 8, "epoch_s": 0.3, "periodic": False}}
    first = local.head()
    start = local.wait_for_starts(1, 30)[0]
    local.cluster.wait_until(lambda: time.time() > start["time"] + 0.8, 5, "some epochs")
    os.kill(start["pid"], signum)
    assert first.wait(30) == 1
    saved = local.epoch("a")
    assert saved in (2, 3, 4)
    assert local.head().wait(60) == 0
    model = local.model("a")
    assert (model["starts"], model["signals"]) == ([0, saved], [signum.name])


def test_a_training_breaks_where_it_is_told_to(local) -> None:
    local.runs = {"a": {"epochs": 3, "epoch_s": 0.1, "fail_at": 2, "fail_starts": 1, "write_to": "said.log"}}
    head = local.head()
    head.wait_for("broken on purpose at epoch 2", 30)
    assert head.wait(10) == 1
    assert local.head().wait(60) == 0
    assert local.model("a")["starts"] == [0, 1]
    assert len((local.folder / "said.log").read_text().splitlines()) == 2


def test_nothing_of_a_killed_head_is_left(local) -> None:
    local.runs = {"a": {"epochs": 1000, "ignore_signals": True}}
    head = local.head()
    start = local.wait_for_starts(1, 30)[0]
    os.kill(start["pid"], signal.SIGTERM)
    head.kill(signal.SIGKILL)
    assert head.wait(5) == -signal.SIGKILL
    training = f"{local.folder}/.snakemake/scripts"
    assert start["pid"] in processes(training)
    head.end()
    local.cluster.wait_until(lambda: not processes(training), 5, "the training to be gone")


def test_somebody_who_is_not_root_runs_it(local) -> None:
    assert local.head(user=USER).wait(60) == 0
    assert (local.folder / "results/report.txt").owner() == USER
