"""One run is broken: the others finish, its error is where a user looks, and once repaired it alone trains."""

from harness import models


def test_one_bad_run_among_ten(workflow, cluster) -> None:
    runs = "abcdefghij"
    workflow.runs = {run: {"epochs": 1, "epoch_s": 0.2, "partition": "cpu", "gpu": 0} for run in runs}
    workflow.runs["d"] |= {"epochs": 3, "fail_at": 2}
    workflow.profile["keep-going"] = True
    head = workflow.head(*models(*runs))
    assert head.wait(120) == 1
    good = [run for run in runs if run != "d"]
    workflow.check_trained_once(*good)
    output = head.output()
    [start] = workflow.starts("d")
    assert "ValueError: run d is broken on purpose at epoch 2" in output
    assert f"job {start['job']}: failed on {start['node']} with exit code 1" in output
    [log] = (workflow.folder / ".snakemake/submitit/jobs").glob(f"*/{start['job']}_0_log.out")
    assert str(log) in output
    assert "ValueError" in log.read_text()
    workflow.runs["d"].pop("fail_at")
    assert workflow.head(*models(*runs)).wait(60) == 0
    assert [len(workflow.starts(run)) for run in runs] == [2 if run == "d" else 1 for run in runs]
    assert workflow.model("d")["epoch"] == 3
