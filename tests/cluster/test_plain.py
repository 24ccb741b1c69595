"""A cluster without accounting: adoption, requeue and failure work, and costs come from the jobs' own notes."""

from harness import models


def test_all_of_it_works_without_accounting(plain_workflow, plain_cluster) -> None:
    study = plain_workflow
    study.runs = {run: {"epochs": 20, "epoch_s": 0.4} for run in "ab"}
    study.runs["bad"] = {"epochs": 2, "fail_at": 1, "partition": "cpu", "gpu": 0}
    study.profile |= {"keep-going": True, "submitit-costs-into": "model.json"}
    head = study.head(*models(*study.runs))
    starts = {run: study.wait_for_training(run) for run in "ab"}
    head.wait_for("ValueError: run bad is broken on purpose at epoch 1", 30)
    head.kill()
    again = study.head(*models(*study.runs))
    again.wait_for(f"adopted job {starts['a']['job']}", 30)
    plain_cluster.run("scontrol", "requeue", starts["b"]["job"])
    assert again.wait(120) == 1  # the bad one fails again
    study.check_trained_once("a", "b")
    assert [len(study.starts(run)) for run in "ab"] == [1, 2]
    assert {start["job"] for start in study.starts() if start["run"] != "bad"} == {
        start["job"] for start in starts.values()
    }
    costs = {cost["outputs"][0]: cost["attempts"] for cost in study.costs()}
    [alone] = costs[models("a")[0]]
    lost, last = costs[models("b")[0]]
    assert {attempt["source"] for attempt in (alone, lost, last)} == {"job"}
    assert [attempt["lost"] for attempt in (alone, lost, last)] == [False, True, False]
    assert alone["elapsed_s"] > 8
    assert alone["gpu_s"] > 8
    assert [study.model(run)["costs"] for run in "ab"] == [[alone], [lost, last]]
    for attempt in (alone, lost, last):
        assert all(attempt[name] != 0 for name in ("elapsed_s", "cpu_s", "gpu_s", "max_rss_mb"))
