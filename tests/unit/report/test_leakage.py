"""The leakage on the page: both bounds with their density, and whether they rank the runs as the attack errors do."""

import math
from pathlib import Path
from typing import Any

import pytest

from cem.report.groups import group_plan
from cem.report.leakage import Orders, compare_orders, leakage_table, orders_table
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.table import Table
from cem.report.threat import threat_models
from cem.storage.hdf5 import write_file

from .conftest import write_study
from .test_answer import STUDY, set_facts

Sandwich = tuple[float, float, bool]  # upper, lower, saturated
LABELS = ("none", "gmm-bound-w0.1", "attention-mixture-w0.1")


def measured(
    folder: Path, facts: dict[str, tuple[float, list[Sandwich]]], late: str = ""
) -> tuple[Orders, Table | None, Table | None]:
    """Of a study at σ 0.1, label → (error, bounds of each seed): the orders, their table, and that of the bounds."""
    seeds = len(facts["none"][1])
    folder.mkdir(exist_ok=True)
    text = STUDY.format(surrogates="{kind: none}, {kind: gmm}, {kind: attention}", seeds=list(range(seeds)), grid="{}")
    plan = write_study(folder, text.replace("grid: {}", "noise_std: 0.1"))
    for run in plan.runs.values():
        error, bounds = facts[run.surrogate.label] if run.noise_std else (0.01, [(math.inf, 6.9, True)] * seeds)
        converged = run.surrogate.label != late or not run.noise_std
        set_facts(plan, run, 0.98, error * (1 + 0.01 * run.seed), converged=converged)
        upper, lower, saturated = bounds[run.seed]
        attrs: dict[str, Any] = {
            "leakage_nats": upper, "leakage_lower_nats": lower, "leakage_lower_saturated": saturated,
            "leakage_lower_ceiling": math.log(1000),
            "unsaturated_noise_std": 0.4 if saturated else 0.1, "unsaturated_leakage_nats": 20.0,
            "unsaturated_leakage_lower_nats": 5.0, "unsaturated_leakage_member": "k8-diag-em",
        }  # fmt: skip
        attrs |= {} if math.isinf(upper) else {"leakage_member": "k1-pca32-em"}
        path = plan.leakage(run)
        path.unlink()
        with write_file(path, "mixture", attrs=attrs):
            pass
    results, _ = gather(plan)
    (threat,), groups = threat_models(plan), group_plan(plan)
    orders = compare_orders(groups, results, threat, Scores(plan))
    return orders, orders_table(orders), leakage_table(groups, results, threat)


def bounds(*uppers: float, lower: float = 6.8, saturated: bool = True) -> list[Sandwich]:
    return [(upper, lower - 0.01 * seed, saturated) for seed, upper in enumerate(uppers)]


def test_a_larger_bound_with_a_larger_error_is_said_to_be_another_order(tmp_path: Path) -> None:
    """The diagonal mixture's numbers of a review: equal errors would be no contradiction, these two are."""
    facts = {
        LABELS[0]: (0.02, bounds(157, 158, 159)),
        LABELS[1]: (0.03, bounds(217, 219, 218)),  # more nats, yet less is rebuilt than of the first
        LABELS[2]: (0.04, bounds(115, 114, 116)),  # in order with both
    }
    orders, table, _ = measured(tmp_path, facts)
    (swap,) = orders.swaps
    assert (swap.more, swap.less, swap.sign) == (LABELS[1], LABELS[0], "≤")
    assert swap.nats[0].mean == 218
    assert swap.nats[1].mean == 158
    assert math.exp(swap.log.mean) == pytest.approx(1.5)
    assert orders.agreeing == 2 + 3  # the third with both, and the reference (∞ nats, the least error) with all three
    assert table is not None
    assert table.rows[0][:2] == (LABELS[1], LABELS[0])
    assert table.rows[0][4].startswith("1.50 [")


def test_what_chance_may_have_ranked_is_no_other_order(tmp_path: Path) -> None:
    facts = {
        LABELS[0]: (0.02, bounds(157, 190, 120)),
        LABELS[1]: (0.03, bounds(187, 159, 218)),  # larger in the mean, not by the interval
        LABELS[2]: (0.03, bounds(188, 158, 217)),
    }
    orders, table, _ = measured(tmp_path, facts)
    assert orders.swaps == ()
    assert table is None


def test_an_error_that_is_only_a_limit_ranks_nothing(tmp_path: Path) -> None:
    facts = {
        LABELS[0]: (0.02, bounds(157, 158, 159)),
        LABELS[1]: (0.03, bounds(217, 219, 218)),
        LABELS[2]: (0.04, bounds(115, 114, 116)),
    }
    orders, *_ = measured(tmp_path, facts, late=LABELS[1])
    assert orders.swaps == ()
    assert (orders.compared, orders.doubtful) == (3, 1)  # the two others and the reference, by the upper bound


def test_a_saturated_lower_bound_ranks_nothing_and_an_unsaturated_one_does(tmp_path: Path) -> None:
    def facts(saturated: bool) -> dict[str, tuple[float, list[Sandwich]]]:
        return {
            LABELS[0]: (0.02, bounds(100, 90, 110, lower=5.0, saturated=saturated)),
            LABELS[1]: (0.03, bounds(110, 100, 90, lower=6.0, saturated=saturated)),
            LABELS[2]: (0.04, bounds(90, 110, 100, lower=5.5, saturated=False)),
        }

    assert measured(tmp_path / "saturated", facts(True))[0].swaps == ()
    first, second = measured(tmp_path / "free", facts(False))[0].swaps
    assert {first.sign, second.sign} == {"≥"}
    assert {(one.more, one.less) for one in (first, second)} == {(LABELS[1], LABELS[0]), (LABELS[2], LABELS[0])}


def test_the_table_names_the_density_and_measures_where_pairs_are_not_saturated(tmp_path: Path) -> None:
    facts = {
        LABELS[0]: (0.02, bounds(157, 158, 159)),
        LABELS[1]: (0.03, bounds(17, 18, 19, lower=5.0, saturated=False)),
        LABELS[2]: (0.04, bounds(115, 114, 116)),
    }
    _, _, table = measured(tmp_path, facts)
    assert table is not None
    rows = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in table.rows]
    assert rows[0][:4] == [LABELS[0], "0.1", "k1-pca32-em", "3"]
    assert rows[0][4:] == ["≥ 6.79 (saturated)", "158 ± 2", "6.91"]
    assert rows[1] == [LABELS[0], "0.4", "k8-diag-em", "3", "5.00 ± 0.00", "20.0 ± 0.0", "6.91"]
    assert rows[2][:6] == [LABELS[1], "0.1", "k1-pca32-em", "3", "4.99 ± 0.02", "18.0 ± 2.5"]
    assert rows[3][0] == LABELS[2]  # no second row for what is not saturated
    assert [row[:3] for row in rows[-2:]] == [
        ["undefended reference", "0", "none (no noise)"],
        ["undefended reference", "0.4", "k8-diag-em"],
    ]
