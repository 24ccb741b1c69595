"""Records of cluster jobs are joined with a study's plan: the last of each job counts, and other studies' do not."""

from pathlib import Path

import pytest

from cem.planning.cluster import ClusterJobs, find_cluster_jobs
from cem.planning.plan import Plan
from snakemake_executor_plugin_submitit.books.records import Member


@pytest.fixture
def plan(study, tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    return Plan(study())


def find(plan: Plan, *changes: dict[str, object]) -> ClusterJobs:
    """By records as the executor has them, oldest first."""
    plain = {"key": "k", "rule": "train", "state": "failed", "cause": "it broke", "node": "n1", "log": "l"}
    return find_cluster_jobs(plan, [Member(**plain | change) for change in changes])


def outputs(plan: Plan, name: str = "model.safetensors") -> list[str]:
    (run,) = plan.runs.values()
    return [str(plan.run(run) / name)]


def test_a_failure_without_its_file_is_told(plan) -> None:
    record = {"outputs": outputs(plan), "attempt": 3}
    (job,) = find(plan, record).failed
    (run,) = plan.runs
    assert (job.rule, job.run, job.node, job.attempt, job.log, job.cause) == ("train", run, "n1", 3, "l", "it broke")
    for path in map(Path, outputs(plan)):
        path.parent.mkdir(parents=True)
        path.touch()
    assert find(plan, record).failed == []


def test_what_is_not_known_of_a_failure_is_a_dash(plan) -> None:
    (job,) = find(plan, {"outputs": outputs(plan), "node": "", "log": "", "cause": ""}).failed
    assert (job.node, job.log, job.cause) == ("-", "-", "-")


@pytest.mark.parametrize(("later", "open_jobs"), [("done", 0), ("open", 1), ("cancelled", 0), ("retried", 0)])
def test_a_later_submission_stands_for_an_earlier_one(plan, later, open_jobs) -> None:
    found = find(plan, {"outputs": outputs(plan)}, {"outputs": outputs(plan), "state": later})
    assert (found.failed, found.open) == ([], open_jobs)


def test_files_of_other_studies_are_not_looked_at(plan) -> None:
    other = {"outputs": ["results/other/runs/a/model.safetensors"]}
    found = find(plan, other, {"outputs": outputs(plan, "else.txt")}, other | {"state": "open"})
    assert (found.failed, found.open) == ([], 0)


def test_shared_files_and_attacks_are_the_studys(plan) -> None:
    (run,) = plan.runs.values()
    attack = str(plan.attack(run, "mean_image") / "metrics.parquet")
    data = str(plan.data(run.dataset))
    found = find(plan, {"outputs": [attack]}, {"outputs": [data]}, {"outputs": [str(plan.report)]})
    assert [job.run for job in found.failed] == [run.id, "-", "-"]
