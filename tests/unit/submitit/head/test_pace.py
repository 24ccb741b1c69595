"""The time left is the work left over the work done per second."""

import pytest

from snakemake_executor_plugin_submitit.head.pace import Pace, spoken


def test_nothing_is_said_before_anything_is_done() -> None:
    pace = Pace(["train"] * 3, now=0.0)
    assert (pace.left, pace.seconds_left(now=5.0)) == (3, None)


def test_each_rule_has_its_own_duration_and_jobs_run_side_by_side() -> None:
    pace = Pace(["train"] * 4 + ["attack"] * 2 + ["report"], now=0.0)
    pace.done("train", 100.0)
    pace.done("train", 100.0)
    pace.done("attack", 40.0)
    # Left: two trainings of 100 s, an attack of 40 s, a report of the mean, 80 s; 240 s of work took 120 s.
    assert pace.left == 4
    assert pace.seconds_left(now=120.0) == pytest.approx((200 + 40 + 80) * 120 / 240)


@pytest.mark.parametrize(("seconds", "text"), [(40.2, "40 s"), (600, "10 min"), (9000, "2.5 h"), (3 * 86400, "3 days")])
def test_durations_are_spoken(seconds, text) -> None:
    assert spoken(seconds) == text
