"""When jobs ran, and what the terms of the objective were."""

import json

import pandas as pd

from cem.planning.plan import Plan
from cem.report.charts import term_curves
from cem.report.groups import group_plan
from cem.report.looks import looks_of
from cem.report.timeline import _lanes, timeline


def test_jobs_at_the_same_time_are_above_each_other() -> None:
    assert _lanes([(0.0, 10.0), (2.0, 3.0), (5.0, 1.0), (10.0, 1.0), (4.0, 1.0)]) == [0, 1, 1, 0, 2]


def test_the_timeline_tells_what_all_attempts_took_and_lost(plan: Plan) -> None:
    run = next(iter(plan.runs.values()))
    path = plan.attack(run, "decoder") / "attack.json"
    attempt = {"node": "n", "device": "cpu", "started": "2026-11-27T09:53:31+00:00", "seconds": 3600.0}
    attempts = [attempt | {"ended": "killed", "lost_seconds": 1800.0}, attempt]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"attempts": attempts}))
    picture = timeline(plan)
    assert picture is not None
    trainings = len(plan.runs) * 12.0 / 3600
    lost = 0.5 + len(plan.runs) * 1.5 / 3600
    total = f"{len(plan.runs) + 2} attempts of trainings and attacks took {2 + trainings:.3g} hours together"
    assert f"{total}, of which {lost:.3g} were lost" in picture.caption
    assert b"hours since 2026-11-27T08:53:31+00:00" in picture.data


def test_terms_of_the_objective_are_drawn_where_they_are_measured(plan: Plan) -> None:
    groups = group_plan(plan)
    assert term_curves(plan, groups, looks_of(groups)) is None
    for run in groups[1].runs:
        path = plan.run(run) / "history.csv"
        history = pd.read_csv(path)
        history["surrogate_loss"], history["surrogate_grad_norm"] = [3.0, 2.0, 1.5], [0.1, 0.2, 0.3]
        history.to_csv(path, index=False)
    picture = term_curves(plan, groups, looks_of(groups))
    assert picture is not None
    assert "surrogate's term, unweighted, gradient at ẑ: surrogate's term." in picture.alt
    assert f"{groups[1].label} 1.5" in picture.alt
    assert b"cross-entropy" not in picture.data
