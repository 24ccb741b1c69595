"""Hostile names, and somebody who is not root."""

import pytest
from harness import USER, Workflow, models

SHORT = {"epochs": 2, "epoch_s": 0.1}


@pytest.fixture
def study_in(cluster, tmp_path, shims):
    """Makes the workflow in a folder of this name."""
    made = []

    def make(name: str) -> Workflow:
        made.append(Workflow(cluster, tmp_path / name, shims))
        made[-1].runs = {"a": SHORT}
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.mark.parametrize("name", ["it's a study; touch x", """it's a "study" & more"""])
def test_a_hostile_path_is_a_path(study_in, tmp_path, name) -> None:
    study = study_in(name)
    assert study.head(*models("a")).wait(60) == 0
    study.check_trained_once()
    study.check_books()
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize("name", ["it's $(touch x)", "a `touch x`", "100%"])
def test_a_path_that_cannot_be_quoted_is_refused_before_anything_is_sent(study_in, shims, tmp_path, name) -> None:
    shims("sbatch", 'exec $REAL "$@"')
    head = study_in(name).head(*models("a"))
    assert head.wait(30) == 1
    assert "expected paths without $" in head.output()
    assert shims.calls("sbatch") == []
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize("account", ["ci;touch x", "ci\n#SBATCH --wrap=id", "$(touch x)"])
def test_a_hostile_account_is_refused_before_anything_is_sent(workflow, shims, tmp_path, account) -> None:
    shims("sbatch", 'exec $REAL "$@"')
    workflow.runs = {"a": SHORT}
    workflow.profile["default-resources"] = {"slurm_partition": "cpu", "mem_mb": 100, "runtime": 5}
    workflow.profile["submitit-account"] = account
    head = workflow.head(*models("a"))
    assert head.wait(30) == 1
    assert "expected account to hold letters" in head.output()
    assert shims.calls("sbatch") == []
    assert not list(tmp_path.rglob("x"))


def test_somebody_who_is_not_root_trains(workflow, cluster) -> None:
    workflow.runs = {"a": {"epochs": 6}}
    head = workflow.head(*models("a"), user=USER)
    job = workflow.wait_for_training("a")["job"]
    assert [row["user"] for row in cluster.squeue() if row["id"] == job] == [USER]
    assert head.wait(60) == 0
    workflow.check_trained_once()
    workflow.check_books()
    assert (workflow.folder / models("a")[0]).owner() == USER
