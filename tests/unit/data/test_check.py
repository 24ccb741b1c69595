import subprocess
import sys

import numpy as np
import pytest

from cem.config import MlxtendDataset, Split, SyntheticDataset
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
