"""What an attempt may do: run on after the signal, ask for more in the next one, keep away from a broken node."""

import subprocess

import pytest

SNAKEFILE = """
rule deaf:
    output: "deaf"
    resources: runtime=1
    shell: "echo start >>deaf.log; sleep 28; touch {output}"

rule deaf_and_bad:
    output: "bad"
    shell: "touch hears; sleep 12; echo its own fault; exit 3"

rule grows:
    output: "grown"
    retries: 2
    resources: mem_mb=lambda wildcards, attempt: 100 * attempt
    shell: "echo {resources.mem_mb} >>grows.log; [ {resources.mem_mb} = 300 ]; touch {output}"

rule far:
    output: "far"
    shell: "echo $SLURMD_NODENAME >{output}"
"""


@pytest.fixture
def study(workflow):
    """The rules above, in place of the small workflow's."""
    (workflow.folder / "Snakefile").write_text(SNAKEFILE)
    workflow.profile["submitit-lost-after"] = 3
    return workflow


@pytest.fixture
def blind_node(study, cluster):
    """Node c1 does not see the folder of the study."""
    enter = ["nsenter", "-m", "-t", str(cluster.pid("slurmd-c1"))]
    subprocess.run([*enter, "mount", "-t", "tmpfs", "none", study.folder], check=True)
    yield "c1"
    subprocess.run([*enter, "umount", study.folder], check=True)


def test_scripts_that_do_not_save_and_rules_with_retries(study, cluster) -> None:
    """SIGUSR2 half a minute or more before the limit ends none of them; each attempt is a job of its own."""
    study.profile["keep-going"] = True
    head = study.head("deaf", "bad", "grown")
    cluster.wait_until(lambda: (study.folder / "hears").exists(), 60, "the job that will fail to run")
    [bad] = study.jobs_of("deaf_and_bad")
    cluster.run("scancel", "--signal=USR2", bad)
    assert head.wait(150) == 1
    assert (study.folder / "deaf").exists()
    assert (study.folder / "deaf.log").read_text() == "start\n"
    assert f"job {bad}: failed on" in head.output()
    assert "with exit code 3" in head.output()
    if cluster.accounting:
        assert [row["state"] for row in cluster.sacct(bad, duplicates=True)] == ["FAILED"]
    assert (study.folder / "grows.log").read_text().split() == ["100", "200", "300"]
    assert len(study.jobs_of("grows")) == 3


def test_a_node_that_does_not_see_the_folder_is_named_and_kept_away_from(study, blind_node) -> None:
    head = study.head("far")
    assert head.wait(90) == 0
    assert (study.folder / "far").read_text() == "c2\n"
    said = f"never started on {blind_node} (FAILED, exit code 0:53): the node could not open the job's log"
    assert said in head.output()
    assert f"Sending it again, not to {blind_node}," in head.output()


def test_a_python_that_is_not_there_is_said_at_once(study) -> None:
    study.profile["submitit-python"] = "/no/such/python"
    head = study.head("far")
    assert head.wait(60) == 1
    assert "Python did not start on c1 (FAILED, exit code 2:0): /no/such/python: No such file" in head.output()
    assert len(study.books()) == 1
