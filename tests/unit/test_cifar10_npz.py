"""benchmarks/cifar10_npz.py makes the files that the CIFAR-10 studies read."""

import io
import pickle
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.utils
from PIL import Image
from torchvision.datasets import CIFAR10

from cem.config import NpzDataset, load_study
from cem.data.sources import read_source

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/cifar10_npz.py"
SHARED = ROOT.parent / "shared/data/cifar10_jpeg.npz"  # beside the repository
GREY = np.arange(12) * 20  # of each image: JPEG keeps flat images as they are
LABELS = np.array([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1])
TRAIN = np.arange(12) < 8
CLASSES = np.array(["cat", "dog"])


@pytest.fixture
def packed(tmp_path) -> Path:
    """A copy of twelve flat images as JPEG files end to end."""
    files = []
    for grey in GREY:
        Image.new("RGB", (32, 32), (int(grey),) * 3).save(file := io.BytesIO(), "JPEG", quality=100)
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    path = tmp_path / "jpeg.npz"
    off = np.cumsum([0, *map(len, files)])
    np.savez(path, jpeg=np.concatenate(files), off=off, y=LABELS, train=TRAIN, classes=CLASSES)
    return path


@pytest.fixture
def make(monkeypatch):
    """Run the script; what it refuses comes as SystemExit."""

    def run(out: Path, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, [out, *arguments])])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_images_keep_their_labels_and_marks_and_the_project_reads_them(make, packed, tmp_path):
    out = tmp_path / "out.npz"
    make(out, "--jpeg", packed)
    source = read_source(NpzDataset(name="cifar", path=str(out)))
    assert source.class_names == ("cat", "dog")
    which = np.abs(source.images.mean((1, 2, 3))[:, None] - GREY).argmin(1)
    assert sorted(which) == list(range(12))
    assert which.tolist() != list(range(12)), "shuffled: the copy is ordered by class"
    assert (source.labels == LABELS[which]).all()
    assert (source.is_test == ~TRAIN[which]).all()


def test_limits_keep_equal_numbers_of_each_class_and_repeat_themselves(make, packed, tmp_path):
    first, second = tmp_path / "first.npz", tmp_path / "second.npz"
    for out in (first, second):
        make(out, "--jpeg", packed, "--limit-train", 4, "--limit-test", 2)
    assert first.read_bytes() == second.read_bytes()
    with np.load(first) as file:
        assert np.bincount(file["y"][file["train"]]).tolist() == [2, 2]
        assert np.bincount(file["y"][~file["train"]]).tolist() == [1, 1]


@pytest.mark.parametrize("limit", [3, 10, 0])
def test_a_limit_that_cannot_be_kept_is_refused(make, packed, tmp_path, limit):
    with pytest.raises(SystemExit, match=f"of each class; found {limit} for 2 classes of 4 images or more"):
        make(tmp_path / "out.npz", "--jpeg", packed, "--limit-train", limit)
    assert not (tmp_path / "out.npz").exists()


def test_another_file_is_named_with_what_it_should_hold(make, tmp_path):
    np.savez(tmp_path / "other.npz", x=GREY)
    with pytest.raises(SystemExit, match=r"other\.npz: expected the arrays jpeg, off, y, train, classes; found x"):
        make(tmp_path / "out.npz", "--jpeg", tmp_path / "other.npz")


def test_the_original_comes_from_torchvision(make, tmp_path, monkeypatch):
    """Downloaded once, and read without unpickling more than arrays."""
    labels, fetched = np.repeat(LABELS, 6)[:60], []
    pixels = np.broadcast_to(np.arange(60, dtype=np.uint8)[:, None] * 4, (60, 3072))
    folder = tmp_path / "cifar-10-batches-py"

    def fetch(url, root, filename, md5):
        assert (url, root, md5) == (CIFAR10.url, str(tmp_path), CIFAR10.tgz_md5)
        fetched.append(url)
        folder.mkdir()
        for number, name in enumerate([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"]):
            rows = slice(10 * number, 10 * number + 10)
            content = {b"data": pixels[rows], b"labels": labels[rows].tolist()}
            (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        (folder / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"cat", b"dog"]}, protocol=2))

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", fetch)
    monkeypatch.setattr(CIFAR10, "__init__", None)  # it unpickles whatever there is
    for out in ("out.npz", "again.npz"):
        make(tmp_path / out, "--torchvision", tmp_path)
        source = read_source(NpzDataset(name="cifar", path=str(tmp_path / out)))
        which = source.images[:, 0, 0, 0] // 4
        assert sorted(which) == list(range(60))
        assert (source.labels == labels[which]).all()
        assert (source.is_test == (which >= 50)).all()
        assert source.class_names == ("cat", "dog")
    assert len(fetched) == 1


def test_the_front_says_how_its_file_is_made():
    study = load_study(ROOT / "config/front_cifar10.yaml")
    command = f"python benchmarks/cifar10_npz.py {study.dataset.path} --jpeg "
    for page in ("config/front_cifar10.yaml", "docs/results/front_cifar10.md"):
        assert command in (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED}, the JPEG copy of CIFAR-10, is absent")
def test_the_jpeg_copy_of_cifar_10(make, tmp_path):
    make(tmp_path / "out.npz", "--jpeg", SHARED, "--limit-train", 100, "--limit-test", 20)
    with np.load(tmp_path / "out.npz") as file:
        assert file["x"].shape == (120, 32, 32, 3)
        assert np.bincount(file["y"][file["train"]]).tolist() == [10] * 10
        assert np.bincount(file["y"][~file["train"]]).tolist() == [2] * 10
