"""Raw files through Snakemake: whatever their folder is called; replaced ones are noticed, touched ones are not."""

import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .test_workflow import ROOT, STUDY, planned, snakemake, write_study


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of images whose name means something to shells and to Snakemake, below the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "home" / "it's {my} ~data"
    images = np.random.default_rng(0).integers(0, 256, (60, 32, 32), dtype=np.uint8)
    for number, image in enumerate(images):
        path = folder / f"class{number % 2}" / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def test_a_replaced_image_is_noticed_and_a_touched_one_is_not(raw: Path, tmp_path: Path) -> None:
    split = {"val": 10, "shadow": 10, "test": 10}
    dataset = {"source": "image_folder", "name": "mine", "path": f"~/{raw.name}", "channels": 1, "split": split}
    write_study(
        tmp_path, {**STUDY, "dataset": dataset, "runs": [], "training": {**STUDY["training"], "batch_size": 10}}
    )
    only = ("--until", "prepare_data")
    snakemake(tmp_path, *only)
    image = raw / "class1" / "1.bmp"
    image.touch()
    assert "prepare_data" not in planned(tmp_path, *only)
    Image.new("L", (32, 32), 9).save(image)
    os.utime(image, (0, 0))  # older than all that was made of it
    assert planned(tmp_path, *only)["prepare_data"] == 1


def test_the_recipe_for_own_images_works_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The README's own words, on photographs of several sizes in the folder that it names."""
    row = next(line for line in (ROOT / "README.md").read_text().splitlines() if "use your own images" in line)
    folder, command = re.findall(r"`([^`]+)`", row)
    program, *arguments = shlex.split(command)
    assert program == "snakemake"
    for name in ("Snakefile", "workflow", "profiles", "config"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for label, name in enumerate(["daisy", "rose"]):
        (tmp_path / folder / name).mkdir(parents=True)
        for i in range(60):
            image = rng.integers(0, 200, (30 + i % 3, 40, 3), dtype=np.uint8) + 50 * label
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / folder / name / f"{i}.jpg")
    snakemake(tmp_path, *arguments, "--until", "prepare_data")
    assert list((tmp_path / "results/data").glob("mine-*.h5"))
    assert planned(tmp_path, *arguments)["train"] > 0
