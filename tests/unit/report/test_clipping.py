"""When the report says that clipping took λ's meaning away."""

from pathlib import Path

import pytest

from cem.planning.plan import Plan
from cem.report.clipping import clipping_warnings

from .conftest import write_study

COLUMNS = (
    "epoch,phase,cross_entropy,leakage_nats,probe_leakage_nats,val_accuracy,weight,client_clipped,client_clip_factor"
)
FEW, MOST = (0.4, 0.1), (0.9, 0.1)  # share of the batches, and how hard these were cut
CASES = {
    "most batches, hard": ([MOST, MOST, MOST], True),
    "most batches, a little": ([(0.9, 0.6)] * 3, False),
    "few batches, hard": ([FEW] * 3, False),
    "no batch": ([(0.0, "")] * 3, False),
    "no limit": ([("", "")] * 3, False),
    "in the warm-up alone": ([MOST, FEW, FEW], False),
    "in half of the epochs that count": ([FEW, MOST, FEW], True),
}


def with_history(plan: Plan, epochs: list, columns: str = COLUMNS) -> Plan:
    """The first epoch is the warm-up's, at λ = 0."""
    for run in plan.runs.values():
        weights = (0, run.surrogate.weight, run.surrogate.weight)
        rows = [f"1,train,1,,,0.5,{w},{share},{factor}" for w, (share, factor) in zip(weights, epochs, strict=True)]
        count = len(columns.split(","))
        table = [columns, *(",".join(row.split(",")[:count]) for row in rows)]
        (plan.run(run) / "history.csv").write_text("\n".join(table) + "\n")
    return plan


@pytest.mark.parametrize(("epochs", "warned"), CASES.values(), ids=CASES.keys())
def test_it_warns_of_runs_whose_surrogate_was_cut_to_less_than_half(tmp_path: Path, epochs, warned) -> None:
    plan = with_history(write_study(tmp_path), epochs)
    found = clipping_warnings(plan, plan.runs.values())
    assert len(found) == warned
    for run in plan.runs.values() if warned else ():
        assert (run.id in found[0]) == (run.surrogate.weight > 0)


def test_a_history_of_an_older_version_is_not_warned_of(tmp_path: Path) -> None:
    plan = with_history(write_study(tmp_path), [MOST] * 3, COLUMNS.removesuffix(",client_clipped,client_clip_factor"))
    assert clipping_warnings(plan, plan.runs.values()) == []


def test_many_runs_are_counted_instead_of_named(tmp_path: Path) -> None:
    plan = with_history(write_study(tmp_path), [MOST] * 3)
    (pressed,) = [run for run in plan.asked.values() if run.surrogate.kind == "gmm" and run.seed == 0]
    (found,) = clipping_warnings(plan, [pressed] * 7)
    assert "and 2 more" in found
