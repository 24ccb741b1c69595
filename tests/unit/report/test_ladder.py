"""Ladders: decoders that differ in size alone, and the runs on which a larger one would still come closer."""

import json
from pathlib import Path

import pandas as pd
import pytest

from cem.config import Run
from cem.planning.plan import Plan
from cem.report.cells import LARGER
from cem.report.groups import group_plan
from cem.report.ladder import ladder_table, ladders
from cem.report.page import write_report
from cem.report.results import aggregate, gather
from cem.report.scores import Scores
from cem.report.table import Table
from cem.report.tables import summary_table
from cem.report.threat import ThreatModel, threat_models

from .conftest import MSE, REFERENCE_MSE, STUDY, infer_mse, write_study

DECODER = "  - {kind: decoder, net: res_normN1C8, epochs: 3}\n"
LARGE = "  - {kind: decoder, net: res_normN2C8, epochs: 3, name: large}\n"
ON_REFERENCES = LARGE.replace("}", ", runs: reference}")


def study(folder: Path, monkeypatch: pytest.MonkeyPatch, *further: str) -> Plan:
    """A study with attacks beside its own. `large` has twice the decoder's parameters, and its errors."""
    monkeypatch.setitem(MSE, "large", MSE["decoder"])
    plan = write_study(folder, STUDY.replace(DECODER, "".join([DECODER, *further])))
    for run in plan.runs.values():
        if "large" in [attack.id for attack in plan.attacks(run)]:
            change(plan, run, "large", parameters=642)
    return plan


def change(plan: Plan, run: Run, attack: str, factor: float = 1.0, **about: object) -> None:
    """Of an attack on a run, what it says of itself, and its errors by a factor."""
    path = plan.attack(run, attack)
    record = json.loads((path / "attack.json").read_text())
    (path / "attack.json").write_text(json.dumps(record | {"held_out_mse": factor * record["held_out_mse"]} | about))
    scores = pd.read_parquet(path / "metrics.parquet")
    scores.assign(mse=factor * scores["mse"]).to_parquet(path / "metrics.parquet", index=False)


def runs_of(plan: Plan, surrogate: str) -> list[Run]:
    return [run for run in plan.asked.values() if run.surrogate.kind == surrogate]


def ladder(plan: Plan) -> Table | None:
    return ladder_table(plan, group_plan(plan), gather(plan)[0], Scores(plan))


def last_steps(table: Table | None) -> dict[str, str]:
    """Group → the change by its last step."""
    assert table is not None
    return {row[0]: row[-1] for row in table.rows}


def strongest(plan: Plan, threat: ThreatModel) -> tuple[dict[str, str], tuple[str, ...]]:
    """Group → strongest attack, as the table of runs has it; and that table's notes."""
    table = summary_table(plan, group_plan(plan), gather(plan)[0], threat, Scores(plan))
    return {row[0]: row[1] for row in table.rows}, table.notes


def test_every_group_with_two_sizes_is_on_the_ladder_the_references_first(tmp_path, monkeypatch) -> None:
    table = ladder(study(tmp_path, monkeypatch, LARGE))
    assert table is not None
    groups = ["undefended reference", "none", "gmm-bound-w0.1", "attention-mixture-w0.1"]
    assert [row[0] for row in table.rows] == [label for label in groups for _ in range(2)]
    assert [row[2:4] for row in table.rows] == [("decoder", "321"), ("large", "642")] * 4
    assert [row[-1] for row in table.rows] == ["", "−19.0 ¶"] + ["", "+0.0"] * 3


def test_a_ladder_may_stand_on_the_references_alone(tmp_path, monkeypatch) -> None:
    table = ladder(study(tmp_path, monkeypatch, ON_REFERENCES))
    assert table is not None
    assert [row[0] for row in table.rows] == ["undefended reference"] * 2
    latex = table.latex()
    assert r"undefended reference & 2 & decoder & 321 & $\le$ 0.010~$\pm$~0.127 $\dagger$ & " in latex
    assert r"large & 642 & $\le$ 0.008~$\pm$~0.127 $\dagger$ & $-$19.0 \P{}" in latex


def test_one_size_is_no_ladder(plan: Plan) -> None:
    assert ladder(plan) is None


@pytest.mark.parametrize(("factor", "change_text", "marked"), [(0.95, "−5.0 ¶", True), (0.98, "−2.0", False)])
def test_runs_on_which_a_larger_attacker_would_help_are_marked(
    tmp_path, monkeypatch, factor: float, change_text: str, marked: bool
) -> None:
    plan = study(tmp_path, monkeypatch, LARGE)
    for run in plan.runs.values():
        same = infer_mse(run, "decoder") / infer_mse(run, "large")
        change(plan, run, "large", factor if run in runs_of(plan, "gmm") else same)
    table = ladder(plan)
    assert table is not None
    assert last_steps(table)["gmm-bound-w0.1"] == change_text
    assert last_steps(table)["undefended reference"] == "+0.0"
    assert (LARGER in table.notes) == marked
    (threat,) = threat_models(plan)
    named, notes = strongest(plan, threat)
    assert {label for label, words in named.items() if "¶" in words} == ({"gmm-bound-w0.1"} if marked else set())
    assert (LARGER in notes) == marked


def test_a_step_is_of_the_seeds_that_both_have(tmp_path, monkeypatch) -> None:
    """The larger fails on the seed with the larger error: without that seed it would seem to come closer."""
    plan = study(tmp_path, monkeypatch, LARGE)
    _, second = runs_of(plan, "gmm")
    change(plan, second, "large", 1.5, failure="lr too high")
    assert last_steps(ladder(plan))["gmm-bound-w0.1"] == "+0.0"


def test_a_rung_that_failed_says_nothing_about_the_ladder(tmp_path, monkeypatch) -> None:
    plan = study(tmp_path, monkeypatch, ON_REFERENCES)
    for reference in plan.references.values():
        change(plan, reference, "large", failure="lr too high")
    table = ladder(plan)
    assert table is not None
    assert table.rows[1][2:] == ("large", "642", "attack failed", "")
    assert LARGER not in table.notes


def test_each_threat_model_has_its_own_ladder(tmp_path, monkeypatch) -> None:
    """Of decoders with labels there is one; that the larger of the others helps does not mark its table."""
    monkeypatch.setitem(MSE, "labelled", MSE["decoder"])
    monkeypatch.setitem(REFERENCE_MSE, "labelled", REFERENCE_MSE["decoder"])
    plan = study(tmp_path, monkeypatch, LARGE, DECODER.replace("}", ", name: labelled, labels: true}"))
    for run in runs_of(plan, "gmm"):
        change(plan, run, "large", 0.9)
    assert [[attack.id for attack in one] for one in ladders(plan)] == [["decoder", "large"]]
    plain, labelled = threat_models(plan)
    assert "¶" in strongest(plan, plain)[0]["gmm-bound-w0.1"]
    assert not any("¶" in words for words in strongest(plan, labelled)[0].values())


def test_the_ladder_is_on_the_page_and_beside_it(tmp_path, monkeypatch) -> None:
    plan, out = study(tmp_path, monkeypatch, LARGE), tmp_path / "out"
    aggregate(plan, out / "results.parquet", out / "results.csv", out / "runs.csv")
    write_report(plan, out / "results.parquet", out / "report.html", None, out / "tables")
    assert "Would more attacker help?" in (out / "report.html").read_text(encoding="utf-8")
    assert (out / "tables" / "ladder.tex").is_file()


def test_where_a_larger_network_would_come_closer_the_error_is_a_limit(tmp_path: Path, monkeypatch) -> None:
    plan = study(tmp_path, monkeypatch, LARGE)
    for run in runs_of(plan, "attention"):
        change(plan, run, "large", factor=0.8)  # `nearest` makes a limit of gmm's, too
    results, runs = gather(plan)
    best = results.query("strongest and scope == 'infer'").set_index("run")
    first = {kind: runs_of(plan, kind)[0].id for kind in ("none", "gmm", "attention")}  # the other seed is unconverged
    limits = {kind: bool(best.loc[run, "strongest_bound"]) for kind, run in first.items()}
    assert limits == {"none": False, "gmm": True, "attention": True}
    assert runs.set_index("run").loc[first["attention"], "infer_bound"]
