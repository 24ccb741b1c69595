"""What is found to be wrong before any job starts."""

import pytest

from cem import CemError
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start


def test_an_attention_module_that_is_too_large_is_refused_with_its_count(study, tmp_path) -> None:
    large = {"kind": "attention", "tokens": "flat"}
    plan = Plan(study(model={"cut_layer": 3}, surrogates=[{"kind": "none"}, large]), tmp_path)
    with pytest.raises(CemError, match=r"155,\d{3},\d{3} parameters for z of 8×16×16"):
        check_before_start(plan)
    check_before_start(Plan(study(model={"cut_layer": 3}, surrogates=[{"kind": "attention"}]), tmp_path))


def test_a_raw_file_that_is_absent_is_named(study, tmp_path) -> None:
    plan = Plan(study(dataset={"source": "npz", "name": "mine", "path": str(tmp_path / "mine.npz")}), tmp_path)
    with pytest.raises(CemError, match=r"mine\.npz"):
        check_before_start(plan)
