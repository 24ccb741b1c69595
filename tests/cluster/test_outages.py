"""SLURM does not answer, or answers nonsense, for a while: the study finishes, and nothing is trained twice."""

import time

import pytest
from harness import models

NONSENSE = {
    "garbage": "echo '<html>502 Bad Gateway</html>'; echo 'a|b|c'; exit 0",
    "empty": "exit 0",
    "fails": "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
    "hangs": "exec sleep 600",
}


@pytest.fixture
def study(workflow):
    """Three trainings of some seconds."""
    workflow.runs = {run: {"epochs": 12} for run in "abc"}
    return workflow


def check_all_is_well(study, head, timeout_s: float, requeued: str = "") -> None:
    assert head.wait(timeout_s) == 0
    study.check_trained_once()
    study.check_books(requeued)


@pytest.mark.slow
def test_the_controller_is_away_for_a_minute(study, cluster) -> None:
    head = study.head(*models(*study.runs))
    study.wait_for_training("a")
    cluster.wait_until_saved()
    cluster.stop("slurmctld")
    time.sleep(60)
    cluster.start("slurmctld")
    check_all_is_well(study, head, 120)
    assert len(study.starts()) == 3


@pytest.mark.parametrize("seconds", [15, pytest.param(60, marks=pytest.mark.slow)])
def test_the_controller_goes_away_right_after_a_requeue(study, cluster, seconds) -> None:
    """The node may hear of the requeue or not: then the training ends, and must not begin again."""
    head = study.head(*models(*study.runs))
    start = study.wait_for_training("a")
    cluster.wait_until_saved()
    cluster.run("scontrol", "requeue", start["job"])
    cluster.stop("slurmctld")
    time.sleep(seconds)
    cluster.start("slurmctld")
    cluster.wait_until(lambda: not cluster.squeue(), 90, "the requeued job to be over")
    check_all_is_well(study, head, 30, requeued="a")
    assert [len(study.starts(run)) for run in "bc"] == [1, 1]


@pytest.mark.usefixtures("accounting")
def test_the_accounting_is_away(study, cluster) -> None:
    """All the time, a failing job included; the costs then come from the jobs themselves."""
    study.runs["c"] |= {"fail_at": 2}
    study.profile["keep-going"] = True
    cluster.stop("slurmdbd")
    head = study.head(*models(*study.runs))
    assert head.wait(120) == 1
    study.check_trained_once("a", "b")
    assert len(study.starts()) == 3
    assert "broken on purpose" in head.output()
    attempts = [attempt for cost in study.costs() for attempt in cost["attempts"]]
    assert {attempt["source"] for attempt in attempts} == {"job"}
    assert all(attempt["elapsed_s"] > 1 for attempt in attempts)


@pytest.mark.parametrize(
    "kinds", [["garbage", "empty", "fails"], pytest.param(["hangs"], marks=pytest.mark.slow)], ids=" ".join
)
def test_answers_are_nonsense_for_a_while(study, cluster, shims, kinds) -> None:
    """squeue's and sacct's, while jobs run, end and are requeued."""
    head = study.head(*models(*study.runs))
    start = study.wait_for_training("b")
    for kind in kinds:
        before = len(shims.calls("squeue"))
        for name in ("squeue", "sacct"):
            shims(name, NONSENSE[kind])
        if kind == kinds[0]:
            cluster.run("scontrol", "requeue", start["job"])
        time.sleep(45 if kind == "hangs" else 5)
        assert len(shims.calls("squeue")) > before
    for name in ("squeue", "sacct"):
        shims.remove(name)
    check_all_is_well(study, head, 150)
    assert [len(study.starts(run)) for run in "abc"] == [1, 2, 1]
    assert head.output().count("the cluster does not answer") == 1
