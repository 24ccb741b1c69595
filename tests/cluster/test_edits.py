"""What is edited while no head is there trains again, and nothing else; what is forced really runs."""

import pytest
from harness import models

TWO = models(*"ab")


def test_an_edited_run_whose_job_lives_is_cancelled_and_trained_anew(workflow, cluster) -> None:
    workflow.runs = {run: {"epochs": 25} for run in "ab"}
    head = workflow.head(*TWO)
    jobs = {run: workflow.wait_for_training(run)["job"] for run in "ab"}
    head.kill()
    workflow.runs["b"] = {"epochs": 3}
    again = workflow.head(*TWO)
    assert again.wait(90) == 0
    assert cluster.state(jobs["b"]) == "CANCELLED"
    assert [start["job"] for start in workflow.starts("a")] == [jobs["a"]]
    workflow.check_trained_once("a")
    assert len(workflow.starts("b")) == 2
    assert (workflow.model("b")["epoch"], workflow.model("b")["options"]) == (3, {"epochs": 3})
    assert workflow.model("b")["job"] != jobs["b"]


def test_an_edited_run_whose_job_ended_meanwhile_trains_again(workflow, cluster) -> None:
    workflow.runs = {run: {"epochs": 5} for run in "ab"}
    head = workflow.head(*TWO)
    workflow.wait_for_starts(2, 60)
    head.kill()
    cluster.wait_until(lambda: not cluster.squeue(), 30, "both jobs to end")
    workflow.runs["b"] = {"epochs": 3}
    again = workflow.head(*TWO)
    if again.wait(60) == 1:
        assert "run the same command again" in again.output()
        assert workflow.head(*TWO).wait(60) == 0
    assert [len(workflow.starts(run)) for run in "ab"] == [1, 2]
    workflow.check_trained_once("a")
    assert workflow.model("b")["options"] == {"epochs": 3}
    last = workflow.head("--dry-run", *TWO)
    assert last.wait(30) == 0
    assert "Nothing to be done" in last.output()


@pytest.mark.parametrize(
    "force", [["--forcerun", "train"], pytest.param(["-f"], marks=pytest.mark.slow)], ids=["forcerun", "f"]
)
def test_what_is_forced_runs_again(workflow, force) -> None:
    workflow.runs = {"a": {"epochs": 2, "epoch_s": 0.1}}
    assert workflow.head(*models("a")).wait(60) == 0
    first = workflow.model("a")["job"]
    assert workflow.head(*models("a"), *force).wait(60) == 0
    assert len(workflow.starts("a")) == 2
    assert workflow.model("a")["job"] != first
