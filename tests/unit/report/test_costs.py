"""What a training used reaches the results and the report; what nobody counted is unavailable, not zero."""

import json

import pandas as pd
import pytest

from cem.planning.plan import Plan
from cem.report.costs import Cost, cost_of, hours
from cem.report.page import write_report
from cem.report.results import aggregate
from cem.report.tables import totals_table
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
    expected = Cost("accounting", elapsed_s=70.0, gpu_s=140.0, cpu_s=55.0, max_rss_mb=950.0, lost_s=10.0)
    assert cost([ENDED], [LOST, DONE]) == expected
    assert cost([ENDED], [DONE]).lost_s == 0


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    expected = Cost("mixed", elapsed_s=None, gpu_s=None, cpu_s=None, max_rss_mb=900.0, lost_s=None)
    assert cost([ENDED], [SILENT, DONE]) == expected


def test_without_a_cluster_the_job_counts_itself() -> None:
    expected = Cost("job", elapsed_s=67.0, gpu_s=0.0, cpu_s=None, max_rss_mb=900.0, lost_s=7.0)
    assert cost([KILLED, ENDED]) == expected


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


def test_hours_of_several_jobs_say_what_is_not_known() -> None:
    assert (hours([3600.0, 7200.0]), hours([3600.0, None]), hours([None]), hours([])) == (
        "3", "≥ 1", "unavailable", "unavailable",
    )  # fmt: skip


def test_what_a_study_took_is_told_for_trainings_each_attack_and_together(plan: Plan) -> None:
    runs = list(plan.runs.values())
    for run, costs in ((runs[0], [LOST, DONE]), (runs[1], [SILENT, DONE])):
        path = plan.run(run) / "train.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"costs": costs}))
    attack = plan.attack(runs[0], "decoder") / "attack.json"
    attack.write_text(json.dumps(json.loads(attack.read_text()) | {"costs": [DONE | {"cpu_s": 7200.0}]}))
    rows = {row[0]: dict(zip(totals_table(plan).header, row, strict=True)) for row in totals_table(plan).rows}
    assert list(rows) == ["trainings", *(f"attack {one.id}" for one in plan.study.attacks), "together"]
    assert rows["attack decoder"]["counted"] == f"1 of {len(runs)}"
    assert rows["attack decoder"]["CPU, h"] == "2"
    assert rows["attack decoder"]["broken off, h"] == "0"
    assert rows["trainings"]["memory, MB"] == "950"
    assert rows["trainings"]["GPU, h"].startswith("≥ ")  # of the second run's first attempt nothing is known
    assert float(rows["together"]["CPU, h"].removeprefix("≥ ")) > 2
    assert {rows["attack linear"][name] for name in ("wall, h", "CPU, h", "GPU, h", "memory, MB")} == {"unavailable"}


def test_without_a_cluster_attempts_and_lost_work_are_told(plan: Plan, tmp_path) -> None:
    aggregate(plan, tmp_path / "r.parquet", tmp_path / "r.csv", tmp_path / "runs.csv")
    write_report(plan, tmp_path / "r.parquet", tmp_path / "report.html", tables_dir=tmp_path / "tables")
    lines = (tmp_path / "tables/costs.tex").read_text()
    assert "& job & 2 & 10.5" in lines  # seconds of training: of two seeds 10 and 11
    assert "& unavailable &" in lines
    assert "1.5" in lines
