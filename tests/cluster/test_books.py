"""Books that cannot be read or written; jobs that are still the right ones, whatever is touched or edited."""

import json
import os

from harness import CLUSTER_SH, ROOT, USER, models

SNAKEFILE = """
rule slow:
    input: ancient("in.txt")
    output: "slow"
    params: options={"a", "b", "c", "d", "e"}
    shell: "echo start >>slow.log; sleep 12; touch {output}"
"""


def test_a_live_job_is_adopted_though_what_snakemake_looks_at_did_not_change(workflow, cluster) -> None:
    """Code is no trigger, the input is ancient, and a set has another order in every process."""
    snakefile, asked = workflow.folder / "Snakefile", workflow.folder / "in.txt"
    snakefile.write_text(SNAKEFILE)
    asked.touch()
    workflow.profile["rerun-triggers"] = ["mtime", "params", "input", "software-env"]
    head = workflow.head("slow", environment={"PYTHONHASHSEED": "1"})
    cluster.wait_until(lambda: (workflow.folder / "slow.log").exists(), 60, "the job to start")
    head.kill()
    asked.write_text("touched")
    snakefile.write_text(SNAKEFILE.replace("touch {output}", "touch  {output}"))
    again = workflow.head("slow", environment={"PYTHONHASHSEED": "2"})
    assert again.wait(60) == 0
    assert "adopted job" in again.output()
    assert (workflow.folder / "slow.log").read_text() == "start\n"


def test_the_jobs_of_a_record_that_cannot_be_read_are_cancelled_and_made_again(workflow, cluster) -> None:
    workflow.runs = {"a": {"epochs": 16}}
    head = workflow.head(*models("a"))
    job = workflow.wait_for_training("a")["job"]
    head.kill()
    [record] = (workflow.folder / ".snakemake/submitit/jobs").glob("*/record.json")
    record.write_bytes(b"")
    again = workflow.head(*models("a"))
    assert again.wait(90) == 0
    assert f"record not read: {record}" in again.output()
    assert f"cancelling job {job} of an earlier run: its record {record.parent.name} cannot be read" in again.output()
    assert cluster.state(job) == "CANCELLED"
    workflow.check_trained_once()


def test_records_that_cannot_be_written_are_written_later(workflow, cluster) -> None:
    """As on a full disk: the jobs go on, it is said, and nothing is lost."""
    workflow.runs = {"a": {"epochs": 4}, "b": {"epochs": 24}}
    head = workflow.head(*models(*"ab"), user=USER)
    workflow.wait_for_starts(2, 60)
    [record] = (workflow.folder / ".snakemake/submitit/jobs").glob("*/record.json")
    record.parent.chmod(0o500)
    head.wait_for("records cannot be written ([Errno 13]", 60)
    record.parent.chmod(0o700)
    head.wait_for("records can be written again", 30)
    assert head.wait(60) == 0
    workflow.check_trained_once()
    assert {member["state"] for member in json.loads(record.read_text())["members"]} == {"done"}


def test_the_head_as_a_job_makes_its_log_folder_and_takes_memory_in_either_way(workflow, cluster) -> None:
    workflow.runs = {"a": {"epochs": 2, "epoch_s": 0.1}}
    workflow.write()
    python, needed = cluster.python(None)
    own = workflow.folder / ".venv/bin/python"
    own.parent.mkdir(parents=True)
    own.write_text(f'#!/bin/bash\nexec {python} "$@"\n')
    own.chmod(0o755)
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), needed.get("PYTHONPATH", "")]), **needed}
    script = CLUSTER_SH.parents[2] / "profiles/slurm/head.sbatch"
    place = ("--account=ci", "--partition=cpu", "--mem-per-cpu=600")
    words = ["sbatch", "--parsable", *place, str(script), "--profile", "profile", *models("a")]
    job = cluster.run(*words, cwd=workflow.folder, environment=environment).strip()
    cluster.wait_until(lambda: cluster.state(job) in ("COMPLETED", "FAILED"), 90, "the head to end")
    log = workflow.folder / f"logs/head-{job}.log"
    assert cluster.state(job) == "COMPLETED", log.read_text()
    workflow.check_trained_once()
    assert "(train run=a) done" in log.read_text()
