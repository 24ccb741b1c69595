"""What is expected without an attacker: in results and in a table of its own, never among the attacks."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from cem.planning.plan import Plan
from cem.report.expected import UNSOUND, expected_table
from cem.report.groups import group_plan
from cem.report.inputs import read_leakage
from cem.report.page import write_report
from cem.report.results import aggregate, entropy_power, gather
from cem.report.table import Table
from cem.report.threat import threat_models
from cem.storage.hdf5 import write_file

FOUND = {"lmmse": 0.02, "lmmse_low": 0.015, "dfil": 4.0, "dfil_sem": 0.1, "dfil_floor": 0.25}
FOUND |= {"i_mmse": 1.001, "i_mmse_sem": 0.002, "conditional_nats": 1234.0}
NO_NOISE = {"lmmse": 0.01, "not_applicable": {"dfil": "without noise the Fisher information is infinite"}}


def measure(plan: Plan, **changes: Any) -> None:
    """Gives every run the numbers of FOUND, changed; the undefended reference those of NO_NOISE."""
    for run in plan.runs.values():
        attrs = {"leakage_nats": 512.0} | FOUND | changes if run.noise_std else {"leakage_nats": math.inf} | NO_NOISE
        plan.leakage(run).unlink()
        with write_file(plan.leakage(run), "mixture", attrs={k: v for k, v in attrs.items() if v is not None}):
            pass


def table(plan: Plan) -> Table | None:
    return expected_table(group_plan(plan), gather(plan)[0], threat_models(plan)[0])


def test_columns_of_results(plan: Plan) -> None:
    measure(plan)
    results, runs = gather(plan)
    noisy = results[results["noise_std"] > 0]
    for name, value in FOUND.items():
        assert (noisy[name] == value).all(), name
    assert noisy["entropy_power"].to_list() == pytest.approx([math.exp(-1)] * len(noisy))  # 512 nats, 32×32 numbers
    clean = results[results["noise_std"] == 0]
    assert (clean["entropy_power"] == 0).all()
    assert clean["dfil"].isna().all()
    assert set(clean["not_applicable"]) == {"dfil: without noise the Fisher information is infinite"}
    assert runs.set_index("run")["lmmse"].to_dict() == results.groupby("run")["lmmse"].first().to_dict()


def test_runs_measured_before_have_none(plan: Plan) -> None:
    results, _ = gather(plan)
    assert results[list(FOUND)].isna().all(axis=None)
    assert (results["not_applicable"] == "").all()
    assert table(plan) is None


def test_table(plan: Plan) -> None:
    measure(plan)
    found = table(plan)
    assert found is not None
    rows = {row[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}
    assert rows["none"]["linear error"].startswith("0.02")
    assert rows["none"]["1/dFIL, unbiased only"].startswith("0.25")
    assert rows["none"]["exp(−2I/d)"].startswith("0.368")
    assert rows["none"]["−h(x|z) ≥, nats"].startswith("1234")
    assert rows["undefended reference"]["dFIL"] == "not applicable"
    assert "not applicable: dFIL: without noise the Fisher information is infinite." in found.notes
    assert UNSOUND not in found.notes


def test_a_column_has_its_own_reason_or_none(plan: Plan) -> None:
    """What was not measured does not borrow the reason of another column."""
    measure(plan, lmmse_low=None, i_mmse=None, not_applicable={"lmmse_low": "too few images"})
    found = table(plan)
    assert found is not None
    rows = {row[0]: dict(zip(found.header, row, strict=True)) for row in found.rows}
    assert rows["none"]["linear error, in sample"] == "not applicable"
    assert rows["none"]["I-MMSE"] == "not measured"
    clean = rows["undefended reference"]
    assert clean["dFIL"] == clean["1/dFIL, unbiased only"] == "not applicable"
    assert clean["linear error, in sample"] == clean["I-MMSE"] == "not measured"
    assert [note for note in found.notes if note.startswith("not applicable")] == [
        "not applicable: linear error, in sample: too few images.",
        "not applicable: dFIL: without noise the Fisher information is infinite.",
        "not applicable: 1/dFIL, unbiased only: without noise the Fisher information is infinite.",
    ]


@pytest.mark.parametrize(("ratio", "sem", "marked"), [(1.05, 0.001, True), (1.05, 0.02, False), (0.9, 0.01, True)])
def test_an_estimate_that_fails_its_own_test_is_marked(plan: Plan, ratio: float, sem: float, marked: bool) -> None:
    measure(plan, i_mmse=ratio, i_mmse_sem=sem)
    found = table(plan)
    assert found is not None
    assert (UNSOUND in found.notes) == marked
    assert found.rows[0][found.header.index("I-MMSE")].endswith("†") == marked


def test_none_of_it_is_an_attack_or_a_headline(plan: Plan, tmp_path: Path) -> None:
    """An expected error below every attack's changes neither the strongest nor any attack's numbers."""
    before = gather(plan)[0]
    measure(plan, leakage_nats=300.0, lmmse=0.00345)
    after = gather(plan)[0]
    names = ["run", "attack", "scope", "mse", "strongest", "strongest_of", "attack_ok", "mse_ratio_to_mean_image"]
    pd.testing.assert_frame_equal(before[names], after[names])
    parquet = tmp_path / "out" / "results.parquet"
    aggregate(plan, parquet, tmp_path / "out" / "results.csv", tmp_path / "out" / "runs.csv")
    write_report(plan, parquet, tmp_path / "report.html", tmp_path / "figures", tmp_path / "tables")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    folded = page.split("<details><summary>What is expected without an attacker")[1].split("</details>")[0]
    assert "0.00345" in folded
    assert "0.00345" not in page.replace(folded, "")
    assert (tmp_path / "tables" / "expected.tex").is_file()
    assert "(curve). No guarantee" in page.split("Theorem 1&#39;s floor under the error of any attack")[1][:60]
    assert "mathdefault" not in (tmp_path / "figures" / "floor.svg").read_text(encoding="utf-8")


def test_several_observations_have_their_own(plan: Plan) -> None:
    """The slope is tested at the run's σ alone."""
    measure(plan, lmmse_seen4=0.01, dfil_seen4=16.0)
    run = next(run for run in plan.runs.values() if run.noise_std)
    found = read_leakage(plan, run)(4)
    assert (found["lmmse"], found["dfil"], found["lmmse_low"], found["i_mmse"]) == (0.01, 16.0, None, 1.001)


def test_entropy_power() -> None:
    assert entropy_power(0.0, 10) == 1
    assert entropy_power(-0.3, 10) == 1  # an estimate below its own error
    assert entropy_power(5.0, 10) == pytest.approx(math.exp(-1))
    assert entropy_power(math.inf, 10) == 0
