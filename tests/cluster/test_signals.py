"""A head that is told to end: the jobs are cancelled, or left for the next head, as the settings say."""

import signal

import pytest
from harness import models

SETTING = {
    signal.SIGINT: "submitit-on-interrupt",
    signal.SIGTERM: "submitit-on-terminate",
    signal.SIGHUP: "submitit-on-hangup",
}


@pytest.mark.parametrize("signum", SETTING, ids=lambda signum: signum.name)
def test_a_signal_that_cancels_leaves_nothing(workflow, cluster, signum) -> None:
    workflow.profile[SETTING[signum]] = "cancel"
    workflow.runs = {run: {"epochs": 1000} for run in "abcde"}  # more than there is place for: some wait
    head = workflow.head(*models(*"abcde"))
    workflow.wait_for_starts(4, 60)
    head.kill(signum, group=signum != signal.SIGTERM)
    assert head.wait(30) != 0
    cluster.wait_until(lambda: not cluster.squeue(), 30, "an empty queue")
    assert {member["state"] for record in workflow.books() for member in record["members"]} == {"cancelled"}


@pytest.mark.parametrize(
    "signum",
    [signal.SIGHUP, *(pytest.param(one, marks=pytest.mark.slow) for one in (signal.SIGINT, signal.SIGTERM))],
    ids=lambda signum: signum.name,
)
def test_a_signal_that_leaves_the_jobs_leaves_them_to_the_next_head(workflow, cluster, signum) -> None:
    workflow.profile[SETTING[signum]] = "leave"
    workflow.runs = {run: {"epochs": 20} for run in "ab"}
    head = workflow.head(*models(*"ab"))
    jobs = {workflow.wait_for_training(run)["job"] for run in "ab"}
    head.kill(signum, group=signum != signal.SIGTERM)
    assert head.wait(30) != 0
    assert {row["id"] for row in cluster.squeue()} == jobs
    again = workflow.head(*models(*"ab"))
    assert again.wait(60) == 0
    workflow.check_trained_once()
    assert {start["job"] for start in workflow.starts()} == jobs
    assert len(workflow.starts()) == 2
