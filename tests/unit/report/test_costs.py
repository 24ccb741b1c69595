"""What a cluster counted reaches the results and the report; what nobody counted is unavailable, not zero."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cem.plan import Plan
from cem.report.costs import Cost, Costs
from cem.report.page import write_report
from cem.report.results import aggregate

DONE = {"source": "accounting", "lost": False, "elapsed_s": 60.0, "cpu_s": 50.0, "gpu_s": 120.0, "max_rss_mb": 900.0}
LOST = {"source": "accounting", "lost": True, "elapsed_s": 10.0, "cpu_s": 5.0, "gpu_s": 20.0, "max_rss_mb": 950.0}
SILENT = {"source": "job", "lost": True, "elapsed_s": None, "cpu_s": None, "gpu_s": None, "max_rss_mb": None}


def write(path: Path, *jobs: tuple[str, list[dict]]) -> Path:
    path.write_text("".join(json.dumps({"outputs": [output], "attempts": found}) + "\n" for output, found in jobs))
    return path


def test_all_attempts_count_and_lost_ones_are_told_apart(tmp_path) -> None:
    costs = Costs(write(tmp_path / "costs.jsonl", ("a", [DONE]), ("b", [LOST, DONE])))
    assert costs.of(Path("b")) == Cost("accounting", gpu_s=140.0, cpu_s=55.0, max_rss_mb=950.0, lost_s=10.0)
    assert costs.of(Path("a")).lost_s == 0


def test_the_last_job_that_made_a_file_counts(tmp_path) -> None:
    costs = Costs(write(tmp_path / "costs.jsonl", ("a", [LOST, DONE]), ("a", [DONE])))
    assert costs.of(Path("a")).gpu_s == 120


def test_a_sum_with_an_unknown_part_is_unknown(tmp_path) -> None:
    cost = Costs(write(tmp_path / "costs.jsonl", ("a", [SILENT, DONE]))).of(Path("a"))
    assert (cost.source, cost.gpu_s, cost.lost_s, cost.max_rss_mb) == ("mixed", None, None, 900.0)


def test_nobody_counted(tmp_path) -> None:
    assert Costs(tmp_path / "absent.jsonl").of(Path("a")) == Cost()


@pytest.mark.parametrize("attempts", [[LOST, DONE], [SILENT, DONE]])
def test_costs_are_in_the_results_and_in_the_report(plan: Plan, tmp_path, attempts) -> None:
    run = next(iter(plan.runs.values()))
    costs = write(tmp_path / "costs.jsonl", (str(plan.run(run) / "train.json"), attempts))
    aggregate(plan, tmp_path / "r.parquet", tmp_path / "r.csv", tmp_path / "runs.csv", costs=costs)
    row = pd.read_csv(tmp_path / "runs.csv").set_index("run").loc[run.id]
    if attempts[0] is LOST:
        assert (row["train_gpu_seconds"], row["train_lost_seconds"]) == (140, 10)
    else:
        assert pd.isna(row["train_gpu_seconds"])
    write_report(plan, tmp_path / "r.parquet", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "What the trainings took on the cluster" in page
    assert "unavailable" in page  # the runs that nobody counted


def test_without_a_cluster_the_report_has_no_such_table(plan: Plan, tmp_path) -> None:
    aggregate(plan, tmp_path / "r.parquet", tmp_path / "r.csv", tmp_path / "runs.csv")
    write_report(plan, tmp_path / "r.parquet", tmp_path / "report.html")
    assert "on the cluster" not in (tmp_path / "report.html").read_text()
