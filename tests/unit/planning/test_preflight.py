"""What is found to be wrong before any job starts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cem import CemError
from cem.data.prepare import prepare_data
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


SMALL = {"source": "synthetic", "images": 100, "classes": 2, "split": {"private": 30, "shadow": 20}}
TRAINING = {"epochs": 4, "batch_size": 16}


def refused(plan: Plan, message: str) -> None:
    with pytest.raises(CemError, match=message):
        check_before_start(plan)


@pytest.mark.parametrize("prepared", [False, True])
def test_more_images_than_there_are_cannot_be_asked_for(study, tmp_path, prepared) -> None:
    def plan(**changes: object) -> Plan:
        made = Plan(study(**{"dataset": SMALL, "training": TRAINING, **changes}), tmp_path)
        if prepared:
            for dataset in made.datasets.values():
                prepare_data(dataset, made.data(dataset))
        return made

    check_before_start(plan(training=TRAINING | {"batch_size": 30}))
    refused(plan(training=TRAINING | {"batch_size": 31}), r"batch_size is 31, but synthetic has 30 private images")
    refused(plan(grid={"training.batch_size": [16, 64]}), r"batch_size is 64, but")
    check_before_start(plan(attacks=[{"kind": "linear", "data": "shadow", "data_size": 20}]))
    message = r"attack linear: data_size is 21, but shadow of synthetic has 20 images"
    refused(plan(attacks=[{"kind": "linear", "data": "shadow", "data_size": 21}]), message)


@pytest.fixture
def few(tmp_path: Path) -> Callable[..., dict]:
    """A data set of two classes, of which the second has `count` private images (and one in each other split)."""

    def made(count: int) -> dict:
        labels = np.repeat([0, 1], [40, 3 + count])
        path = tmp_path / f"few{count}.npz"
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 32, 32), dtype=np.uint8)
        np.savez(path, x=images, y=labels, classes=np.array(["many", "few"]))
        split = {"val": 8, "shadow": 8, "test": 8}
        return {"source": "npz", "name": "mine", "path": str(path), "split": split}

    return made


def test_a_class_too_small_for_a_mixture_is_refused_by_name(study, few, tmp_path) -> None:
    def plan(count: int, **changes: object) -> Plan:
        return Plan(study(dataset=few(count), training=TRAINING, **changes), tmp_path)

    gmm = {"surrogates": [{"kind": "gmm"}]}
    refused(plan(1, **gmm), r"surrogate gmm needs at least 2 private images of every class; fewer are of 'few' \(1\)")
    check_before_start(plan(2, **gmm))
    check_before_start(plan(1))
    quantile = {"surrogates": [{"kind": "gaussian", "threshold": {"kind": "quantile"}}]}
    refused(plan(1, **quantile), r"surrogate gaussian needs at least 2 private images of every class")


LPIPS = [{"kind": "lpips", "trunk": "absent.pth"}]


def test_a_metric_that_lacks_its_file_or_package_is_refused(study, tmp_path, monkeypatch) -> None:
    plan = Plan(study(metrics=LPIPS), tmp_path)
    monkeypatch.setattr("cem.config.metric.find_spec", lambda name: object())
    refused(plan, r"lpips expects VGG-16's weights, .* in absent\.pth; there is no such file")
    (tmp_path / "vgg.pth").touch()
    present = Plan(study(metrics=[{"kind": "lpips", "trunk": str(tmp_path / "vgg.pth")}]), tmp_path)
    check_before_start(present)
    monkeypatch.setattr("cem.config.metric.find_spec", lambda name: None)
    refused(present, r"lpips needs the package lpips")


def test_once_all_is_scored_no_metric_is_needed(study, tmp_path) -> None:
    plan = Plan(study(metrics=LPIPS), tmp_path)
    for run in plan.runs.values():
        for attack in plan.attacks(run):
            plan.attack(run, attack.id).mkdir(parents=True)
            (plan.attack(run, attack.id) / "metrics.parquet").touch()
    check_before_start(plan)


@pytest.mark.parametrize(("kind", "least"), [("mean_image", 2), ("linear", 3), ("decoder", 3)])
def test_an_attacker_with_too_few_images_is_refused(study, tmp_path, kind, least) -> None:
    def plan(data_size: int) -> Plan:
        attack = {"kind": kind, "data_size": data_size}
        return Plan(study(dataset=SMALL, training=TRAINING, attacks=[attack]), tmp_path)

    check_before_start(plan(least))
    if least > 2:
        refused(
            plan(least - 1), rf"attack {kind}: expected an attacker with at least {least} images, found {least - 1}"
        )
