import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cem.config import MlxtendDataset, NpzDataset, Split, SyntheticDataset, load_study
from cem.data.check import check_files
from cem.data.sources import DataError
from cem.data.sources.source import check_labels


def test_checking_imports_no_torch() -> None:
    code = (
        "import sys; from cem.config import MlxtendDataset; from cem.data.check import check_files; "
        "check_files(MlxtendDataset()); sys.exit('torch' in sys.modules or 'torchvision' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_splits_that_cannot_be_had_are_refused_without_making_an_image() -> None:
    check_files(MlxtendDataset())
    check_files(SyntheticDataset(images=1_000_000))
    with pytest.raises(DataError, match="mnist5k: split 'val' needs 4001 images, but only 4000"):
        check_files(MlxtendDataset(split=Split(val=4001)))
    with pytest.raises(DataError, match="synthetic: split 'test' has 6 images for 10 classes"):
        check_files(SyntheticDataset(images=30))


def test_images_of_each_class_are_counted() -> None:
    known = check_files(MlxtendDataset(split=Split(private=1000, val=500, shadow=700, test=300)))
    assert {split: counts.tolist() for split, counts in known.counts.items()} == {
        "private": [100] * 10, "val": [50] * 10, "shadow": [70] * 10, "test": [30] * 10
    }  # fmt: skip
    assert known.class_names == tuple(map(str, range(10)))


def test_two_classes_of_one_name_are_refused() -> None:
    check_labels("mine", np.arange(6) % 3, class_names=["a", "b", "A"])
    with pytest.raises(DataError, match="mine: expected a name of its own for each class, found 'a' more than once"):
        check_labels("mine", np.arange(6) % 3, class_names=["a", "b", "a"])


def test_the_template_for_ones_own_images_says_what_to_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """config/mine.yaml, and the line of NumPy of docs/data.md: nothing but the path is missing."""
    study = load_study(Path(__file__).parents[3] / "config/mine.yaml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/mine: expected a folder"):
        check_files(study.dataset)
    images = np.random.default_rng(0).integers(0, 256, (600, 20, 12, 3), dtype=np.uint8)
    labels = np.arange(600) % 3
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = tmp_path / f"data/mine/{label}/{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    in_folders = check_files(study.dataset)
    np.savez("mine.npz", x=images, y=labels)
    as_arrays = check_files(NpzDataset(name="mine", path="mine.npz", fit="crop"))
    for known in (in_folders, as_arrays):
        assert {split: int(counts.sum()) for split, counts in known.counts.items()}.keys() >= {"private", "shadow"}
        assert sum(int(counts.sum()) for counts in known.counts.values()) == 600
