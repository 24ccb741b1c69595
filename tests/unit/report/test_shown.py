"""Which rows have pictures, in a study with too many to draw."""

from pathlib import Path

import pytest

from cem.planning.plan import Plan
from cem.report import shown
from cem.report.groups import group_plan
from cem.report.inputs import read_results
from cem.report.page import write_page, write_report
from cem.report.results import aggregate
from cem.report.shown import mapped_groups, shown_groups, shown_note
from cem.report.threat import threat_models


@pytest.fixture
def results(plan: Plan) -> Path:
    """The aggregated results of the fake study."""
    folder = plan.folder
    aggregate(plan, folder / "results.parquet", folder / "results.csv", folder / "runs.csv")
    return folder / "results.parquet"


def test_all_rows_of_a_small_study_are_shown_and_the_page_says_nothing(plan: Plan, results: Path) -> None:
    groups = group_plan(plan)
    found = shown_groups(groups, read_results(plan, results), threat_models(plan)[0])
    assert found == groups
    assert shown_note(groups, found) == ""


def test_of_a_large_study_those_on_the_front_are_shown(
    plan: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the fake study, error rises as accuracy falls from none to gmm to attention. The reference has the accuracy
    and a lower error than none: it is not on the front."""
    monkeypatch.setattr(shown, "MOST_IN_PICTURES", 3)
    groups, table, threat = group_plan(plan), read_results(plan, results), threat_models(plan)[0]
    assert [group.reference for group in groups] == [False, False, False, True]
    assert shown_groups(groups, table, threat) == groups[:3]
    monkeypatch.setattr(shown, "FROM_FRONT", 2)  # the ends of the front
    ends = shown_groups(groups, table, threat)
    assert ends == [groups[0], groups[2]]
    note = shown_note(groups, ends)
    assert "Pictures of 4 rows" in note
    assert "of 2 rows spread along the front" in note
    assert groups[0].label in note
    assert groups[1].label not in note


def test_the_page_of_a_large_study_says_which_rows_it_shows(
    plan: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(plan, results, plan.report)
    assert "spread along the front" not in plan.report.read_text()
    assert "Timeline of jobs" in plan.report.read_text()
    monkeypatch.setattr(shown, "MOST_IN_PICTURES", 3)
    write_report(plan, results, plan.report)
    assert "Pictures of 4 rows could not be told apart" in plan.report.read_text()
    assert "Timeline of jobs" not in plan.report.read_text()


def test_where_no_attack_counts_there_is_no_front_and_the_first_rows_are_shown(
    plan: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MOST_IN_PICTURES", "MOST_MAPS"):
        monkeypatch.setattr(shown, name, 3)
    for name in ("FROM_FRONT", "MAPS_OF_FRONT"):
        monkeypatch.setattr(shown, name, 2)
    groups, table, threat = group_plan(plan), read_results(plan, results), threat_models(plan)[0]
    table = table.assign(strongest_of="")
    assert shown_groups(groups, table, threat) == groups[:2]
    assert mapped_groups(groups, groups[:2], table, threat) == groups[:2]
    write_page(plan, table, plan.report)
    assert "or the first where no attack counts" in plan.report.read_text()
