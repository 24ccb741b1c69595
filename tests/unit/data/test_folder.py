import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cem.config import ImageFolderDataset, Split
from cem.data.check import check_files
from cem.data.sources import DataError, read_source


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolderDataset:
    """Two classes of ten grey images; image i of a class is filled with 10 · i, + 1 in the second."""
    for label, name in enumerate(["ant's", "bee"]):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("L", (12, 8), 10 * i + label).save(tmp_path / name / f"{i}.png")
        (tmp_path / name / "notes.txt").write_text("no image")
    return ImageFolderDataset(name="insects", path=str(tmp_path), split=Split(val=4, shadow=4, test=4))


def refused(dataset: ImageFolderDataset, message: str) -> None:
    for refuses in (check_files, read_source):
        with pytest.raises(DataError, match=message):
            refuses(dataset)


def test_classes_and_files_come_in_the_order_of_their_names(folder: ImageFolderDataset) -> None:
    check_files(folder)
    source = read_source(folder)
    assert source.class_names == ("ant's", "bee")
    np.testing.assert_array_equal(source.labels, [0] * 10 + [1] * 10)
    assert source.images.shape == (20, 8, 12)
    np.testing.assert_array_equal(source.images[:, 0, 0], [10 * i + label for label in (0, 1) for i in range(10)])


def test_one_colour_image_makes_all_colour(folder: ImageFolderDataset) -> None:
    Image.new("RGB", (12, 8), (1, 2, 3)).save(Path(folder.path, "bee", "9.png"))
    source = read_source(folder)
    np.testing.assert_array_equal(source.images[-1, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(source.images[1, 0, 0], [10, 10, 10])


def test_the_digest_follows_the_content(folder: ImageFolderDataset) -> None:
    before = read_source(folder).sha256
    assert read_source(folder).sha256 == before
    Image.new("L", (12, 8), 77).save(Path(folder.path, "bee", "9.png"))
    assert read_source(folder).sha256 != before


def test_two_sizes_are_refused_with_both_files(folder: ImageFolderDataset) -> None:
    Image.new("L", (13, 8)).save(Path(folder.path, "bee", "4.png"))
    refused(folder, r"ant's/0.png with 12×8 and .*bee/4.png with 13×8 pixels. Crop or resize")


def test_a_damaged_image_is_named(folder: ImageFolderDataset) -> None:
    path = Path(folder.path, "bee", "4.png")
    path.write_bytes(path.read_bytes()[:20])
    refused(folder, re.escape(str(path)) + ": expected an image")


def test_transparency_is_refused(folder: ImageFolderDataset) -> None:
    Image.new("RGBA", (12, 8)).save(Path(folder.path, "bee", "4.png"))
    refused(folder, "without transparency, found Pillow's mode 'RGBA'")


def test_an_empty_class_is_named(folder: ImageFolderDataset) -> None:
    Path(folder.path, "wasp").mkdir()
    refused(folder, "all 3 classes, found none of 'wasp'")


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    refused(ImageFolderDataset(name="none", path=str(tmp_path)), "at least 2 folders, one for each class, found 0")
    absent = ImageFolderDataset(name="none", path=str(tmp_path / "absent"))
    refused(absent, "expected a folder of folders, one for each class; found none")
