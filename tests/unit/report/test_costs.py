"""What a training used reaches the results and the report; what nobody counted is unavailable, not zero."""

import json

import pandas as pd
import pytest

from cem.planning.plan import Plan
from cem.report.costs import Cost, cost_of
from cem.report.page import write_report
from cem.report.results import aggregate
from cem.storage.job_records import JobRecord

JOB = {"node": "n", "device": "cpu", "started": "2026-11-27T08:53:31+00:00"}
DONE = {"source": "accounting", "lost": False, "elapsed_s": 60.0, "cpu_s": 50.0, "gpu_s": 120.0, "max_rss_mb": 900.0}
LOST = {"source": "accounting", "lost": True, "elapsed_s": 10.0, "cpu_s": 5.0, "gpu_s": 20.0, "max_rss_mb": 950.0}
SILENT = {"source": "job", "lost": True, "elapsed_s": None, "cpu_s": None, "gpu_s": None, "max_rss_mb": None}
KILLED = JOB | {"ended": "killed", "seconds": 7.0, "gpu_seconds": 0.0, "cpu_seconds": None, "max_rss_mb": None}
ENDED = JOB | {"ended": "done", "seconds": 60.0, "gpu_seconds": 0.0, "cpu_seconds": 50.0, "max_rss_mb": 900.0}


def cost(attempts: list[dict], costs: list[dict] | tuple = ()) -> Cost:
    """Of a job whose record says this."""
    return cost_of(JobRecord.model_validate({"attempts": attempts, "lost_seconds": 0.0, "costs": list(costs)}))


def test_all_attempts_count_and_lost_ones_are_told_apart() -> None:
    assert cost([ENDED], [LOST, DONE]) == Cost("accounting", gpu_s=140.0, cpu_s=55.0, max_rss_mb=950.0, lost_s=10.0)
    assert cost([ENDED], [DONE]).lost_s == 0


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert cost([ENDED], [SILENT, DONE]) == Cost("mixed", gpu_s=None, cpu_s=None, max_rss_mb=900.0, lost_s=None)


def test_without_a_cluster_the_job_counts_itself() -> None:
    assert cost([KILLED, ENDED]) == Cost("job", gpu_s=0.0, cpu_s=None, max_rss_mb=900.0, lost_s=7.0)


@pytest.mark.parametrize("attempts", [[LOST, DONE], [SILENT, DONE]])
def test_costs_are_in_the_results_and_in_the_report(plan: Plan, tmp_path, attempts) -> None:
    run = next(iter(plan.runs.values()))
    path = plan.run(run) / "train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"costs": attempts}))
    aggregate(plan, tmp_path / "r.parquet", tmp_path / "r.csv", tmp_path / "runs.csv")
    row = pd.read_csv(tmp_path / "runs.csv").set_index("run").loc[run.id]
    if attempts[0] is LOST:
        assert (row["train_gpu_seconds"], row["train_lost_seconds"]) == (140, 10)
    else:
        assert pd.isna(row["train_gpu_seconds"])
    write_report(plan, tmp_path / "r.parquet", tmp_path / "report.html", tables_dir=tmp_path / "tables")
    assert "What the trainings took" in (tmp_path / "report.html").read_text()
    assert "unavailable" in (tmp_path / "tables/costs.tex").read_text()  # the runs that nobody counted


def test_without_a_cluster_attempts_and_lost_work_are_told(plan: Plan, tmp_path) -> None:
    aggregate(plan, tmp_path / "r.parquet", tmp_path / "r.csv", tmp_path / "runs.csv")
    write_report(plan, tmp_path / "r.parquet", tmp_path / "report.html", tables_dir=tmp_path / "tables")
    lines = (tmp_path / "tables/costs.tex").read_text()
    assert "& job & 10.5" in lines  # seconds of training: of two seeds 10 and 11
    assert "& unavailable &" in lines
    assert "1.5" in lines
