"""Which images are shown, and what was made of them."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cem.config import Run
from cem.planning.plan import Plan
from cem.report import images
from cem.report.groups import group_plan
from cem.report.images import Gallery, galleries
from cem.report.inputs import read_results
from cem.report.pictures import Picture
from cem.report.results import aggregate
from cem.report.threat import threat_models
from cem.storage.hdf5 import Reader


@pytest.fixture
def results(plan: Plan) -> Path:
    folder = plan.root
    aggregate(plan, folder / "results.parquet", folder / "results.csv", folder / "runs.csv")
    return folder / "results.parquet"


def shown(plan: Plan, results: Path) -> list[Gallery]:
    return galleries(plan, group_plan(plan), read_results(plan, results), *threat_models(plan), "")


def pixels(picture: Picture | None) -> np.ndarray:
    assert picture is not None
    return np.asarray(Image.open(io.BytesIO(picture.data)))


def test_the_worst_protected_images_and_the_first_ones_are_shown_the_worst_protected_run_first(
    plan: Plan, results: Path
) -> None:
    found = shown(plan, results)
    assert [one.file.name.rpartition("_")[0] for one in found] == ["worst_protected", "reconstructions"]
    count = plan.study.report.images
    for gallery, place, said in zip(found, ("infer/worst", "infer"), ("protected worst", "the first"), strict=True):
        assert said in gallery.caption
        assert [row.label for row in gallery.rows] == [
            "undefended reference", "none", "gmm-bound-w0.1", "attention-mixture-w0.1",
        ]  # fmt: skip
        assert [row.attack for row in gallery.rows] == ["decoder", "decoder", "decoder", "linear"]
        assert gallery.rows[0].scores == "MSE 0.0100, SSIM 0.500"
        run = group_plan(plan)[-1].first
        with Reader(plan.attack(run, "decoder") / "reconstructions.h5", kind="reconstructions") as reader:
            kept = [reader.array(f"{place}/{name}")[:count] for name in ("images", "reconstructions")]
        for picture, expected in zip((gallery.originals, gallery.rows[0].reconstructions), kept, strict=True):
            np.testing.assert_array_equal(pixels(picture), images.strip(expected))
            assert pixels(picture).shape == (*gallery.size[::-1], 3)


def test_where_groups_have_other_worst_images_each_has_its_own_above_it(
    plan: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, groups = images.read_reconstructions, group_plan(plan)

    def differing(plan: Plan, run: Run, attack: str, place: str, count: int) -> tuple[np.ndarray, np.ndarray]:
        originals, answers = read(plan, run, attack, place, count)
        return (originals // 2 if place.endswith("worst") and run is groups[0].first else originals), answers

    monkeypatch.setattr(images, "read_reconstructions", differing)
    worst, first = shown(plan, results)
    assert worst.originals is None
    assert all(row.originals is not None for row in worst.rows)
    assert first.originals is not None
    assert all(row.originals is None for row in first.rows)
    assert (pixels(worst.rows[1].originals) < pixels(worst.rows[0].originals)).any()


def test_pictures_that_are_too_large_for_the_page_show_fewer_images_and_say_so(
    plan: Plan, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = shown(plan, results)[0]
    monkeypatch.setattr(images, "MOST_BYTES", 8_000)
    less = shown(plan, results)[0]
    assert less.size[0] < whole.size[0]
    assert "images; worst_protected_mnist5k" in less.caption
    assert less.file.data == whole.file.data
