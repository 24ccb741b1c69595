"""Heads that die, meet, or come back to an edited study: each run is trained once, and nothing is left unfollowed."""

import signal

import pytest
from harness import models


def kill_in_sbatch(workflow, script: str, group: bool) -> None:
    """A head with this sbatch, killed while it waits for it."""
    workflow.shims("sbatch", script)
    head = workflow.head(*models(*workflow.runs))
    workflow.cluster.wait_until(lambda: (workflow.folder / "in-sbatch").exists(), 30, "sbatch to be called")
    head.kill(signal.SIGKILL, group=group)
    head.wait(5)
    workflow.shims("sbatch", 'exec $REAL "$@"')


def test_the_jobs_of_a_killed_head_are_adopted(workflow, cluster) -> None:
    """One of them is over when the next head comes, one runs, one still waits for its place."""
    workflow.runs = {run: {"epochs": 24} for run in "abcde"}
    workflow.runs["a"]["epochs"] = 2
    head = workflow.head(*models(*"abcde"))
    workflow.wait_for_starts(4, 60)
    head.kill()
    jobs = {row["id"] for row in cluster.squeue()}
    workflow.cluster.wait_until(lambda: (workflow.folder / models("a")[0]).exists(), 30, "run a to end")
    again = workflow.head(*models(*"abcde"))
    assert again.wait(120) == 0
    workflow.check_trained_once()
    assert len(workflow.starts()) == 5
    assert {start["job"] for start in workflow.starts()} == jobs
    workflow.check_books()


@pytest.mark.parametrize("group", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["alone", "with its sbatch"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_head_killed_inside_sbatch_leaves_nothing_behind(workflow, cluster, when, group) -> None:
    """Killed alone, its sbatch goes on, and the job appears while the next head is already there."""
    workflow.runs = {run: {"epochs": 16} for run in "ab"}
    mark, pause, submit = (f"touch {workflow.folder}/in-sbatch", "sleep 6", '$REAL "$@"; touch sbatch-done')
    kill_in_sbatch(workflow, "; ".join([mark, pause, submit] if when == "before" else [submit, mark, pause]), group)
    again = workflow.head(*models(*"ab"))
    if (when, group) != ("before", True):
        cluster.wait_until(lambda: (workflow.folder / "sbatch-done").exists(), 30, "the first sbatch to end")
        assert again.alive
    assert again.wait(120) == 0
    assert not cluster.squeue()
    workflow.check_trained_once()
    assert len(workflow.starts()) == 2
    workflow.check_books()


def test_a_head_killed_between_sbatch_and_its_note_is_taken_over(workflow, cluster) -> None:
    """Its jobs are whole, and only the books do not know their number: the name finds them."""
    workflow.runs = {run: {"epochs": 24} for run in "ab"}
    head = workflow.head(*models(*"ab"))
    workflow.wait_for_training("a")
    head.kill()
    [record] = (workflow.folder / ".snakemake/submitit/jobs").glob("*/record.json")
    [books] = workflow.books()
    record.write_text(record.read_text().replace(f'"job_id": "{books["job_id"]}"', '"job_id": null'))
    assert workflow.books()[0]["job_id"] is None
    again = workflow.head(*models(*"ab"))
    assert again.wait(90) == 0
    workflow.check_trained_once()
    assert len(workflow.starts()) == 2
    workflow.check_books()


def test_a_second_head_is_refused_and_told_who_is_there(workflow, cluster) -> None:
    workflow.runs = {"a": {"epochs": 20}}
    first = workflow.head(*models("a"))
    first.wait_for("submitted", 30)
    second = workflow.head(*models("a"))
    assert second.wait(30) == 1
    host = cluster.run("hostname").strip()
    assert f"process {first.pid} on {host}" in second.output()
    assert first.wait(60) == 0
    workflow.check_trained_once()
    assert len(workflow.starts()) == 1
