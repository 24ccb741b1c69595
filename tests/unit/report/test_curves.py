"""Which runs are one method at several strengths."""

from pathlib import Path

from cem.report.curves import arenas
from cem.report.groups import group_plan
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.threat import threat_models

from .conftest import write_study
from .test_answer import STUDY, set_facts

ROWS = """
runs:
  - {surrogate: {kind: none}, noise_std: 0.2}
  - {surrogate: {kind: none}, defenses: [{kind: nopeek, weight: 0.5}]}
  - {surrogate: {kind: none}, defenses: [{kind: nopeek, weight: 0.1}]}
  - {surrogate: {kind: none}, defenses: [{kind: nopeek, weight: 0.1}], noise_std: 0.2}
  - {surrogate: {kind: none}, defenses: [{kind: dropout, rate: 0.5}]}
"""


def test_runs_that_differ_in_a_defences_strength_are_one_curve(tmp_path: Path) -> None:
    text = STUDY.format(surrogates="{kind: none}", seeds=[0, 1], grid="{}")
    plan = write_study(tmp_path, text.replace("grid: {}", "noise_std: 0.1") + ROWS)
    for run in plan.runs.values():
        set_facts(plan, run, 0.9, 0.01 * (1 + 0.1 * run.seed), converged=True)
    results, _ = gather(plan)
    (arena,) = arenas(group_plan(plan), results, threat_models(plan)[0], Scores(plan))
    assert arena.plain is not None
    assert {point.group.first.noise_std for point in arena.plain.points} >= {0.1, 0.2}
    found = {
        (curve.by, *(tuple(d.label for d in point.group.first.defenses) for point in curve.points))
        for curve in arena.methods
    }
    assert found == {
        ("weight", ("nopeek0.1",), ("nopeek0.5",)),
        ("weight", ("nopeek0.1",)),  # at another noise
        ("rate", ("dropout0.5",)),
    }
