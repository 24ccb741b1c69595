"""What a head says of its jobs: that they start, end, are refused, are not what was planned; and at its own end."""

import re
import signal

from harness import models


def test_refused_jobs_are_told_in_the_sites_own_words(workflow, shims) -> None:
    """And jobs are named when they start and end, with the time that is left."""
    said = "sbatch: Please say your project.\nsbatch: error: Batch job submission failed: Unspecified error"
    shims("sbatch", f"""grep -q partition=urgent "${{@: -1}}" || exec $REAL "$@"; echo '{said}' >&2; exit 1""")
    workflow.runs = {run: {"epochs": 6} for run in "ab"} | {"c": {"partition": "urgent"}}
    workflow.profile["keep-going"] = True
    head = workflow.head(*models(*"abc"))
    assert head.wait(60) == 1
    words = "Please say your project.; error: Batch job submission failed: Unspecified error"
    assert f"sbatch refused it: {words}" in head.output()
    refused = [one for record in workflow.books() for one in record["members"] if one["state"] == "failed"]
    assert [(one["outputs"], one["cause"]) for one in refused] == [(models("c"), f"sbatch refused it: {words}")]
    for run in "ab":
        job = workflow.model(run)["job"]
        assert f"job {job} (train run={run}) started on g" in head.output()
        assert re.search(rf"job {job} \(train run={run}\) done after \d+ s; \d job\(s\) left", head.output())
    assert re.search(r"1 job\(s\) left, about \d+ s", head.output())


def test_edited_sources_and_a_ctrl_c_are_told_job_by_job(workflow, cluster) -> None:
    """The code is edited while the jobs wait for their place; then one has ended, one runs, one waits."""
    workflow.runs = {run: {"epochs": 1000, "partition": "cpu", "gpu": 0} for run in "abc"}
    workflow.runs["a"]["epochs"] = 1
    workflow.runs["c"]["mem_mb"] = 90  # a job of its own
    workflow.profile["submitit-sources"] = "scripts"
    cluster.run("scontrol", "update", "partition=cpu", "state=DOWN")
    try:
        head = workflow.head(*models(*"abc"))
        head.wait_for("submitted (train run=c)", 30)
        [held] = [one["job_id"] for one in workflow.books() if len(one["members"]) == 1]
        cluster.run("scontrol", "hold", held)
        script = workflow.folder / "scripts/train.py"
        script.write_text(script.read_text() + "\n# edited\n")
    finally:
        cluster.run("scontrol", "update", "partition=cpu", "state=UP")
    workflow.wait_for_starts(2, 60)
    [job] = [start["job"] for start in workflow.starts() if start["run"] == "b"]
    told = f"job {job} (train run=b) runs other code than was planned: since then {script} changed."
    head.wait_for(told, 15)
    head.wait_for("(train run=a) done", 15)
    head.kill(signal.SIGINT, group=True)
    assert head.wait(30) == 1
    ends = dict(re.findall(r"submitit: job \S+ \(train run=(\w)\): (.+)", head.output()))
    assert ends == {"b": "cancelled", "c": "cancelled"}
    assert head.output().count(told) == 1
    assert "Traceback" not in head.output()
