"""A site without GPUs, and a setup that fails: what `cem doctor` says is what then happens to the jobs."""

import subprocess

import pytest
from harness import ROOT, models


@pytest.fixture
def cem(workflow, cluster):
    """Runs the program in the workflow's folder as its heads are; its exit code and what it printed."""
    python, needed = cluster.python(None)

    def run(*arguments: str) -> tuple[int, str]:
        environment = {
            **cluster.environment,
            **workflow.shims.environment,
            "HOME": str(workflow.folder / ".home"),
            "PYTHONPATH": str(ROOT),
            **needed,
        }
        words = [python, "-m", "cem.cli", *arguments]
        done = subprocess.run(
            words, cwd=workflow.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_a_site_without_gpus_and_a_setup_that_fails(workflow, shims, cem) -> None:
    workflow.runs = {"a": {"epochs": 2, "epoch_s": 0.1, "partition": "cpu"}}  # and one GPU
    shims("sinfo", """$REAL "$@" | sed 's/gpu:fake:2[^|]*$/(null)/'""")
    install = ("profile", "install", "slurm", "--account", "ci", "--partition", "cpu")
    assert cem(*install, "--setup", "cd /nowhere\necho 'ERROR: no modulefile'; export SET=1")[0] == 0
    code, said = cem("doctor")
    assert code == 1
    assert "problem  gpus: jobs that ask for a GPU go to cpu, which shows none" in said
    assert "cem profile install slurm --no-gpu" in said
    assert "problem  setup there: these lines failed" in said
    assert "cd /nowhere (exit code 1)" in said
    assert "ERROR: no modulefile" in said
    assert "ok       probe: ran on c" in said
    head = workflow.head(*models("a"))
    assert head.wait(60) == 1
    assert "sbatch refused it: " in head.output()

    assert cem(*install, "--no-gpu", "--setup", "")[0] == 0
    code, said = cem("doctor", "--no-probe")
    assert "ok       gpus: the profile says no-gpu" in said
    workflow.profile["submitit-no-gpu"] = True
    assert workflow.head(*models("a")).wait(60) == 0
    workflow.check_trained_once()
