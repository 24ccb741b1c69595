"""Which images are shown, and what was made of them."""

import numpy as np
import pytest

from cem.config import Run
from cem.planning.plan import Plan
from cem.report import images
from cem.report.groups import group_plan
from cem.report.inputs import read_results
from cem.report.results import aggregate
from cem.report.threat import threat_models
from cem.storage.hdf5 import Reader


def test_the_first_images_and_the_worst_protected_are_shown(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    figures, finish = [], images.finish
    monkeypatch.setattr(images, "finish", lambda figure, *rest: figures.append(figure) or finish(figure, *rest))
    results = plan.root / "results.parquet"
    aggregate(plan, results, plan.root / "results.csv", plan.root / "runs.csv")
    groups = group_plan(plan)
    pictures = images.reconstruction_grids(plan, groups, read_results(plan, results), *threat_models(plan), "")
    assert [picture.name.rpartition("_")[0] for picture in pictures] == ["reconstructions", "worst_protected"]
    count = plan.study.report.images
    for figure, picture, place, said in zip(
        figures, pictures, ("infer", "infer/worst"), ("the first test images", "protected worst"), strict=True
    ):
        assert said in picture.caption
        originals, *answers = figure.axes
        assert len(answers) == len(groups)
        strongest = answers[0].get_title().split("  ·  ")[1]
        with Reader(plan.attack(groups[0].first, strongest) / "reconstructions.h5", kind="reconstructions") as reader:
            kept = [reader.array(f"{place}/{name}")[:count] for name in ("images", "reconstructions")]
        for axes, expected in zip((originals, answers[0]), kept, strict=True):
            np.testing.assert_array_equal(axes.get_images()[0].get_array(), images.strip(expected))


def test_where_groups_have_other_worst_images_each_has_its_own_above_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, groups = images.read_reconstructions, group_plan(plan)

    def differing(plan: Plan, run: Run, attack: str, place: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        originals, answers = read(plan, run, attack, place, count)
        return (originals // 2 if place.endswith("worst") and run is groups[0].first else originals), answers

    figures, finish = [], images.finish
    monkeypatch.setattr(images, "finish", lambda figure, *rest: figures.append(figure) or finish(figure, *rest))
    monkeypatch.setattr(images, "read_reconstructions", differing)
    results = plan.root / "results.parquet"
    aggregate(plan, results, plan.root / "results.csv", plan.root / "runs.csv")
    images.reconstruction_grids(plan, groups, read_results(plan, results), *threat_models(plan), "")
    assert [len(figure.axes) for figure in figures] == [1 + len(groups), 2 * len(groups)]
