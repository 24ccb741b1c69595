"""The report of what is finished: what is missing is named, has no number, and makes no other number look better."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cem.planning.plan import Plan
from cem.planning.status import State
from cem.planning.steps import steps_of
from cem.report.finished import describe, report_finished
from cem.report.page import write_page, write_report
from cem.report.provenance import command
from cem.report.results import aggregate

from .test_page import Page


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def lose(plan: Plan, number: int, cause: str = "") -> str:
    """Take away a run's training, and leave the log of its failure."""
    name, run = list(plan.runs.items())[number]
    (plan.run(run) / "train.json").unlink()
    (log,) = [step.log for step in steps_of(plan, name, run) if step.rule == "train"]
    if cause:
        log.parent.mkdir(parents=True)
        log.write_text(cause + "\n")
    return name


def test_of_a_whole_study_it_is_the_report_of_the_workflow(plan: Plan) -> None:
    out = plan.root / "out"
    aggregate(plan, out / "results.parquet", out / "results.csv", out / "runs.csv")
    write_report(plan, out / "results.parquet", out / "report.html", out / "figures", out / "tables")
    assert report_finished(plan) == []
    for name in ("results.csv", "runs.csv", "report.html"):
        assert (plan.folder / name).read_bytes() == (out / name).read_bytes()


def test_runs_without_a_result_are_named_and_have_no_number(plan: Plan) -> None:
    failed, waiting = lose(plan, 2, "TrainingError: epoch 1: loss is <nan>"), lose(plan, 4)
    (plan.folder / "results.parquet").touch()  # of before: the workflow must make it again
    missing = report_finished(plan)
    assert [(one.run, one.state) for one in missing] == [(failed, State.FAILED), (waiting, State.WAITING)]
    assert not (plan.folder / "results.parquet").exists()
    for name in ("results.csv", "runs.csv"):
        assert not {failed, waiting} & set(pd.read_csv(plan.folder / name)["run"])
    text = Page(plan.report).text
    assert "2 of 8 runs have no result, or not all of it" in text
    assert f"{failed} failed: train, TrainingError: epoch 1: loss is <nan>" in text
    assert f"{waiting} waiting" in text
    assert "report of the 6 finished of 8 runs" in describe(plan, missing)


def test_the_whole_report_that_a_workflow_made_meanwhile_stays(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cem report` in a study that is at work: its last job ends while the page is made of the others."""
    lose(plan, 4)
    whole = ("results.parquet", "results.csv", "runs.csv", "report.html")

    def last_job_ends(*arguments: Any, **more: Any) -> None:
        for name in whole:
            (plan.folder / name).write_text("whole")
        write_page(*arguments, **more)

    monkeypatch.setattr("cem.report.finished.write_page", last_job_ends)
    assert len(report_finished(plan)) == 1
    assert [(plan.folder / name).read_text() for name in whole] == ["whole"] * 4
    assert not list(plan.folder.glob(".report-*"))


def test_an_attack_that_is_missing_makes_the_others_error_a_limit(plan: Plan) -> None:
    """The decoder has no result on one run; the error of the attack that leads there may not be the last word."""
    run = next(run for run in plan.asked.values() if run.surrogate.kind == "none" and run.seed == 0)
    shutil.rmtree(plan.attack(run, "decoder"))
    report_finished(plan)
    results = pd.read_csv(plan.folder / "results.csv")
    best = results[(results["run"] == run.id) & (results["scope"] == "infer") & results["strongest"]].iloc[0]
    assert (best["attack"], bool(best["strongest_bound"])) == ("linear", True)


@pytest.mark.parametrize("both", [True, False])
def test_without_its_references_an_attack_is_not_known_to_work(plan: Plan, both: bool) -> None:
    for number in (6, 7) if both else (6,):
        lose(plan, number)
    report_finished(plan)
    results = pd.read_csv(plan.folder / "results.csv").query("attack == 'decoder'")
    assert not results["attack_ok"].any()
    assert results["attack_bound"].all()
    count = "2 of the 2" if both else "1 of the 2"
    assert results["attack_verdict"].str.contains(f"has no result yet on {count} undefended references").any()


def test_of_nothing_the_report_says_what_is_missing_and_which_command_makes_it(plan: Plan) -> None:
    for number in range(8):
        lose(plan, number)
    missing = report_finished(plan)
    assert len(missing) == 8
    text = Page(plan.report).text
    assert "None of 8 runs has a result: there are no numbers to show." in text
    for name in plan.runs:
        assert f"{command()} -- results/fake/runs/{name}/train.json" in text
    assert "report of the 0 finished of 8 runs" in describe(plan, missing)
    assert not (plan.folder / "results.csv").exists()


def test_nothing_of_an_earlier_report_stays_beside_the_new_one(plan: Plan) -> None:
    stale = [plan.folder / name for name in ("tables/gone.tex", "figures/attack_gone.svg")]
    report_finished(plan)
    kept = {path.name for path in (plan.folder / "tables").iterdir()}
    for path in stale:
        path.write_text("of another time")
    report_finished(plan)
    assert not any(path.exists() for path in stale)
    assert {path.name for path in (plan.folder / "tables").iterdir()} == kept


def test_where_nothing_is_finished_any_more_no_number_of_an_earlier_report_stays(plan: Plan) -> None:
    names = ("results.csv", "runs.csv", "results.parquet", "tables/summary.tex", "figures/front.svg")
    for path in (plan.folder / name for name in names):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for number in range(8):
        lose(plan, number)
    report_finished(plan)
    assert [name for name in names if (plan.folder / name).exists()] == []


def test_a_missing_attack_is_named_with_the_command_that_makes_it(plan: Plan) -> None:
    name, run = next(iter(plan.asked.items()))
    shutil.rmtree(plan.attack(run, "decoder"))
    (missing,) = report_finished(plan)
    text = Page(plan.report).text
    assert f"{name} {missing.text}" in text
    assert f"{command()} -- results/fake/runs/{name}/attacks/decoder/metrics.parquet" in text
