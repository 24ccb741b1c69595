"""A training that is interrupted, in whatever way, goes on from its state: every epoch is trained exactly once."""

import os
import signal

import pytest
from harness import models


@pytest.fixture
def study(workflow):
    """Three runs, saved after every epoch."""
    workflow.runs = {run: {"epochs": 10, "epoch_s": 0.4} for run in "abc"}
    return workflow


def test_a_signal_a_requeue_and_a_kill_each_resume(study, cluster) -> None:
    """USR2 in the middle of an epoch, scontrol requeue, and SIGKILL of the training, in one study."""
    study.runs["a"] |= {"periodic": False, "epochs": 12}  # has nothing but what it saves on the signal
    head = study.head(*models(*"abc"))
    starts = {run: study.wait_for_training(run) for run in "abc"}
    cluster.run("scancel", "--signal=USR2", starts["a"]["job"])
    cluster.run("scontrol", "requeue", starts["b"]["job"])
    os.kill(study.process(starts["c"]), signal.SIGKILL)
    assert head.wait(120) == 0
    study.check_trained_once()
    for run in "abc":
        first, second = study.starts(run)
        assert (first["epoch"], second["epoch"] > 0) == (0, True)
        assert study.model(run)["starts"] == [0, second["epoch"]]
    assert study.model("a")["signals"] == ["SIGUSR2"]
    assert study.starts("b")[1]["restarts"] == 1
    assert f"killed on {starts['c']['node']} by signal 9" in head.output()
    for cost in study.costs():
        first, second = cost["attempts"]
        assert (first["source"], first["lost"], second["lost"]) == (cluster.cost_source, True, False)
        used = [attempt[name] for attempt in (first, second) for name in ("cpu_s", "gpu_s")]
        assert all(one is None or one > 0 for one in used)
        assert None not in (used if cluster.accounting else used[1:])  # a killed job says nothing of its CPU time


@pytest.mark.parametrize("partition", [pytest.param("gpu", marks=pytest.mark.slow), "scavenge"])
def test_a_preempted_training_resumes(study, cluster, partition) -> None:
    """In `scavenge` it gets SIGUSR2 and some time to save; in `gpu` it is stopped at once."""
    study.runs = {"a": {"epochs": 10, "epoch_s": 0.4, "partition": partition}}
    head = study.head(*models("a"))
    start = study.wait_for_training("a")
    urgent = cluster.submit("sleep 1", "-purgent", "--gpus-per-node=2", f"-w{start['node']}")
    cluster.wait_for_state(urgent, "RUNNING", "COMPLETED")
    assert head.wait(120) == 0
    study.check_trained_once()
    assert len(study.starts("a")) == 2
    assert study.starts("a")[1]["epoch"] > 0


def test_a_power_cut_sends_the_training_elsewhere(study, cluster) -> None:
    """And the costs tell of both attempts: the lost one, and the one that made the model."""
    study.runs = {"a": {"epochs": 10, "epoch_s": 0.4}}
    study.profile["submitit-costs-into"] = "model.json"
    head = study.head(*models("a"))
    start = study.wait_for_training("a")
    cluster.power_cut(start["node"])
    assert head.wait(120) == 0
    study.check_trained_once()
    first, second = study.starts("a")
    assert second["node"] != first["node"]
    assert second["epoch"] > 0
    [cost] = study.costs()
    assert cost["outputs"] == models("a")
    assert study.model("a")["costs"] == cost["attempts"]
    assert [(attempt["node"], attempt["lost"]) for attempt in cost["attempts"]] == [
        (first["node"], True),
        (second["node"], False),
    ]
    assert cost["attempts"][0]["state"] == ("NODE_FAIL" if cluster.accounting else "")  # the node cannot say
    assert cost["attempts"][1]["elapsed_s"] > 1


@pytest.mark.slow
def test_a_training_that_meets_its_time_limit_three_times_finishes(study, cluster) -> None:
    """A limit of a minute is announced 30 to 60 s ahead: a start has half a minute at most, often less."""
    study.runs = {"a": {"epochs": 95, "epoch_s": 1, "periodic": False, "runtime": 1}}
    head = study.head(*models("a"))
    assert head.wait(900) == 0
    study.check_trained_once()
    model = study.model("a")
    assert len(model["starts"]) >= 4
    assert model["starts"] == sorted(model["starts"])
    assert set(model["signals"]) == {"SIGUSR2"}
    assert len(model["signals"]) == len(model["starts"]) - 1
    assert [start["job"] for start in study.starts("a")] == [study.starts("a")[0]["job"]] * len(model["starts"])
