"""A changed folder is noticed; one whose times alone have changed is not."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cem.config import ImageFolderDataset, NpzDataset, Split, SyntheticDataset
from cem.data import fingerprint as module
from cem.data.fingerprint import fingerprint, record_path, remember
from cem.data.prepare import prepare_data


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolderDataset:
    for name in "ab":
        (tmp_path / "raw" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("L", (9, 9), 10 * i).save(tmp_path / "raw" / name / f"{i}.bmp")  # of one length whatever it shows
    return ImageFolderDataset(name="small", path=str(tmp_path / "raw"), split=Split(val=4, shadow=4, test=4))


@pytest.fixture
def prepared(folder: ImageFolderDataset, tmp_path: Path) -> Path:
    path = tmp_path / "results" / "data.h5"
    planned = fingerprint(folder, path)
    remember(folder, path, planned, prepare_data(folder, path).sha256)
    assert fingerprint(folder, path) == planned
    return path


def touch(path: Path, seconds: int) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + seconds * 10**9))


@pytest.mark.parametrize("change", ["replaced by an older one", "added", "removed", "renamed", "resized", "swapped"])
def test_a_changed_file_is_noticed(folder: ImageFolderDataset, prepared: Path, change: str) -> None:
    before = fingerprint(folder, prepared)
    image = Path(folder.path, "b", "3.bmp")
    match change:
        case "replaced by an older one":
            Image.new("L", (9, 9), 77).save(image)
            touch(image, -10_000)
        case "added":
            shutil.copy2(image, image.with_name("more.bmp"))
        case "removed":
            image.unlink()
        case "renamed":
            image.rename(image.with_name("33.bmp"))
        case "resized":
            Image.new("L", (19, 19), 77).save(image)
        case "swapped":
            other = image.with_name("4.bmp")
            image.rename(image.with_name("x"))
            other.rename(image)
            image.with_name("x").rename(other)
            touch(image, 1)
    after = fingerprint(folder, prepared)
    assert after != before
    assert fingerprint(folder, prepared) == after


def test_times_alone_change_nothing_and_contents_are_read_once(
    folder: ImageFolderDataset, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, reads = fingerprint(folder, prepared), []
    actual = module.content_digest
    monkeypatch.setattr(module, "content_digest", lambda files: reads.append(files) or actual(files))
    assert fingerprint(folder, prepared) == before
    assert reads == []
    for path in Path(folder.path).glob("*/*.bmp"):
        touch(path, 500)
    assert {fingerprint(folder, prepared) for _ in range(3)} == {before}
    assert len(reads) == 1


def test_hidden_files_do_not_count(folder: ImageFolderDataset, prepared: Path) -> None:
    before = fingerprint(folder, prepared)
    Path(folder.path, "a", ".DS_Store").write_bytes(b"left by a program")
    assert fingerprint(folder, prepared) == before


def test_once_prepared_the_raw_files_may_go(folder: ImageFolderDataset, prepared: Path) -> None:
    before = fingerprint(folder, prepared)
    shutil.rmtree(folder.path)
    assert fingerprint(folder, prepared) == before
    Path(folder.path).mkdir()  # what is left of a disk that is not mounted
    assert fingerprint(folder, prepared) == before
    for name in ("a", "b"):  # links whose targets are gone
        Path(folder.path, name).mkdir()
        Path(folder.path, name, "0.png").symlink_to("/nowhere/0.png")
    assert fingerprint(folder, prepared) == before
    prepared.unlink()
    assert fingerprint(folder, prepared) != before


def test_data_without_files_has_none(tmp_path: Path) -> None:
    assert fingerprint(SyntheticDataset(), tmp_path / "data.h5") == ""
    remember(SyntheticDataset(), tmp_path / "data.h5", "", "0" * 64)
    assert not record_path(tmp_path / "data.h5").exists()


def test_a_file_with_an_older_time_is_noticed(
    npz: Callable[..., NpzDataset], images: np.ndarray, tmp_path: Path
) -> None:
    dataset, path = npz(), tmp_path / "data.h5"
    planned = fingerprint(dataset, path)
    remember(dataset, path, planned, prepare_data(dataset, path).sha256)
    np.savez(dataset.path, x=images[::-1], y=np.arange(60) % 3)
    touch(Path(dataset.path), -100_000)
    assert fingerprint(dataset, path) != planned
