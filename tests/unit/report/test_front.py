"""The front of accuracy and error, and the area behind it."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cem.report.equal_accuracy import Comparisons
from cem.report.front import hypervolume, on_front
from cem.report.front_drawing import front
from cem.report.groups import group_plan
from cem.report.pictures import PLAIN, method_colour
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.threat import threat_models

from .conftest import STUDY, write_study
from .test_equal_accuracy import method, noise, row


def test_areas_by_hand() -> None:
    assert hypervolume(np.array([[0.5, 0.4]]), (0.1, 0.0)) == pytest.approx(0.4 * 0.4)
    steps = np.array([[0.9, 0.1], [0.7, 0.3], [0.5, 0.4]])
    assert hypervolume(steps, (0.1, 0.0)) == pytest.approx(0.8 * 0.1 + 0.6 * 0.2 + 0.4 * 0.1)
    assert hypervolume(steps[[2, 0, 1]], (0.1, 0.0)) == pytest.approx(hypervolume(steps, (0.1, 0.0)))
    behind = np.array([*steps, [0.6, 0.2], [0.9, 0.1], [0.05, 9.0], [0.95, 0.0]])  # add nothing
    assert hypervolume(behind, (0.1, 0.0)) == pytest.approx(hypervolume(steps, (0.1, 0.0)))
    assert hypervolume(np.empty((0, 2)), (0.0, 0.0)) == 0


def test_areas_are_those_of_a_fine_grid() -> None:
    random, side = np.random.default_rng(0), (np.arange(1000) + 0.5) / 1000
    for reference in (0.0, 0.2):
        points = random.uniform(0, 1, (6, 2))
        grid = np.stack(np.meshgrid(side, side, indexing="ij"), -1)
        covered = np.any(np.all(points >= grid[:, :, None], axis=3), axis=2) & (grid > reference).all(axis=2)
        assert hypervolume(points, (reference, reference)) == pytest.approx(covered.mean(), abs=0.004)


def test_the_front_is_what_no_other_point_beats() -> None:
    points = np.array([[0.9, 0.1], [0.7, 0.3], [0.6, 0.2], [0.9, 0.1], [0.9, 0.05], [0.95, 0.0]])
    assert on_front(points).tolist() == [True, True, False, True, False, True]


def test_the_hypervolume_of_a_method_has_an_interval_over_seeds_and_is_held_against_noise() -> None:
    """One strength: the rectangle below it, from chance on; and that of noise, seed by seed."""
    rows = [row("vib", "weight", 1.0, seed, 2.0, error) for seed, error in enumerate((0.04, 0.05, 0.06))]
    front = Comparisons(pd.DataFrame([*noise(sigmas=(0.0,)), *rows])).front().set_index("method")
    mine, plain = front.loc["vib"], front.loc["plain noise"]
    areas = np.array([(0.93 - 0.01 * seed - 0.1) * error / 0.9 for seed, error in enumerate((0.4, 0.5, 0.6))])
    noises = np.array([(0.95 - 0.01 * seed - 0.1) * 0.1 / 0.9 for seed in range(3)])
    assert mine["hypervolume"] == pytest.approx(areas.mean())
    half = 4.302652729749464 * areas.std(ddof=1) / 3**0.5
    assert mine["hypervolume_high"] - mine["hypervolume"] == pytest.approx(half)
    assert (mine["hypervolume_seeds"], mine["hypervolume_above_noise_seeds"]) == (len(areas), len(areas))
    assert mine["hypervolume_above_noise"] == pytest.approx((areas - noises).mean())
    assert math.isnan(plain["hypervolume_above_noise"])


def test_an_error_above_the_mean_images_counts_as_that() -> None:
    found = [
        Comparisons(pd.DataFrame(noise() + [row("x", "λ", 1.0, seed, 5.0, error) for seed in range(3)])).front()
        for error in (0.1, 0.5)
    ]
    first, second = (frame.set_index("method").loc["x", "hypervolume"] for frame in found)
    assert first == second == pytest.approx((0.9 - 0.01 - 0.1) / 0.9)


def test_dominated_rows_are_not_on_the_front() -> None:
    front = Comparisons(pd.DataFrame(noise() + method((0.5,) * 3))).front()
    assert front.groupby("method")["on_front"].apply(lambda told: (told == "yes").sum()).to_dict() == {
        "gmm bound": 0,
        "plain noise": 5,
    }


def test_no_method_has_the_colour_of_plain_noise_or_of_another() -> None:
    assert len({PLAIN, *map(method_colour, range(20))}) == 21


def test_noise_of_each_arena_has_a_name_and_a_line_of_its_own(tmp_path: Path) -> None:
    plan = write_study(tmp_path, STUDY + "grid: {model.cut_layer: [3, 4]}\n")
    results, _ = gather(plan)
    drawing = front(group_plan(plan), results, threat_models(plan)[0], Scores(plan))
    plain = [family for family in drawing.families if family.plain]
    assert [family.name for family in plain] == ["cut_layer 3: plain noise", "cut_layer 4: plain noise"]
    assert len({(family.dash, family.border) for family in plain}) == 2
    assert all(family.name in drawing.alt for family in plain)
