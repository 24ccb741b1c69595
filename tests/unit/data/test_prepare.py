import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cem.config import Augment, MlxtendDataset, NpzDataset, Split, SyntheticDataset
from cem.data import prepare
from cem.data.check import check_files, count_prepared
from cem.data.prepare import prepare_data, to_shape
from cem.data.sources import DataError, read_source
from cem.storage.hdf5 import SPLITS, open_dataset

RNG = np.random.default_rng(0)


def test_the_file_holds_the_source_split_as_asked(tmp_path: Path) -> None:
    dataset = SyntheticDataset(images=200, split=Split(seed=5))
    prepare_data(dataset, tmp_path / "a.h5")
    source = read_source(dataset)
    with open_dataset(tmp_path / "a.h5") as file:
        rows = {split: file.array(f"{split}/index") for split in SPLITS}
        np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(200))
        for split in SPLITS:
            np.testing.assert_array_equal(
                file.images(split), np.asarray(source.images)[rows[split]].transpose(0, 3, 1, 2)
            )
            np.testing.assert_array_equal(file.labels(split), source.labels[rows[split]])
            assert file.dataset(f"{split}/images").chunks is None
            assert (file.images(split).dtype, file.labels(split).dtype, rows[split].dtype) == ("u1", "i8", "i8")
        assert file.image_shape == (3, 32, 32)
        assert file.num_classes == 10
        assert file.attrs["source_sha256"] == source.sha256
        assert file.attrs["description"] == "Synthetic images: no claim may rest on them."
        assert json.loads(file.attrs["source"]) == {"source": "synthetic", "images": 200, "split": {"seed": 5}}


def test_equal_settings_give_equal_bytes_whatever_the_augmentation(tmp_path: Path) -> None:
    for name, dataset in {
        "a": SyntheticDataset(images=200),
        "b": SyntheticDataset(images=200, augment=Augment(flip=True)),
        "c": SyntheticDataset(images=200, split=Split(seed=1)),
    }.items():
        prepare_data(dataset, tmp_path / name)
    content = {name: (tmp_path / name).read_bytes() for name in "abc"}
    assert content["a"] == content["b"]
    assert content["a"] != content["c"]


@pytest.mark.parametrize(("setting", "most"), [("_BYTES", 5000), ("_BATCH", 3)])
def test_batches_are_bounded_by_bytes_and_number_and_change_nothing(tmp_path, monkeypatch, setting, most) -> None:
    dataset, sizes = SyntheticDataset(images=200), []
    prepare_data(dataset, tmp_path / "a")
    monkeypatch.setattr(prepare, setting, most)
    fit = prepare.fit_batch
    monkeypatch.setattr(prepare, "fit_batch", lambda images, asked: sizes.append(len(images)) or fit(images, asked))
    prepare_data(dataset, tmp_path / "b")
    assert max(sizes) == {"_BYTES": 2, "_BATCH": 3}[setting]  # of 3,072 bytes each
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_real_digits_become_32_pixels_a_side(tmp_path: Path) -> None:
    prepare_data(MlxtendDataset(), tmp_path / "mnist.h5")
    with open_dataset(tmp_path / "mnist.h5") as file:
        assert {split: file.images(split).shape for split in SPLITS} == {
            "private": (2800, 1, 32, 32),
            "val": (400, 1, 32, 32),
            "shadow": (800, 1, 32, 32),
            "test": (1000, 1, 32, 32),
        }
        np.testing.assert_array_equal(np.bincount(file.labels("test")), [100] * 10)
        ink = file.images("private").mean() / 255
    assert ink == pytest.approx(0.1313, abs=0.002)  # of the raw images: resizing keeps the mean


def test_refused_data_leaves_no_file(tmp_path: Path, npz: Callable[..., NpzDataset]) -> None:
    with pytest.raises(DataError):
        prepare_data(npz(y=np.zeros(60)), tmp_path / "out" / "a.h5")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("channels", "shape"), [(1, (7, 32, 32)), (3, (7, 32, 32, 3))])
def test_images_that_fit_come_through_byte_for_byte(channels: int, shape: tuple[int, ...]) -> None:
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    expected = images[:, None] if channels == 1 else images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(to_shape(images, channels, 32), expected)


def test_grey_is_repeated_and_grey_in_colour_comes_back() -> None:
    grey = RNG.integers(0, 256, (7, 32, 32), dtype=np.uint8)
    colour = to_shape(grey, 3, 32)
    for channel in range(3):
        np.testing.assert_array_equal(colour[:, channel], grey)
    np.testing.assert_array_equal(to_shape(colour.transpose(0, 2, 3, 1).copy(), 1, 32)[:, 0], grey)


def test_colour_becomes_luma() -> None:
    images = RNG.integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    luma = images.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert abs(to_shape(images, 1, 32)[:, 0] - luma).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("size", [(28, 28), (64, 64), (112, 92), (8, 8)])
def test_resizing_keeps_constants_and_symmetry(size: tuple[int, int]) -> None:
    for value in (0, 17, 255):
        assert (to_shape(np.full((2, *size), value, np.uint8), 1, 32) == value).all()
    image = RNG.integers(0, 256, (1, *size), dtype=np.uint8)
    mirrored = to_shape(image[:, :, ::-1].copy(), 1, 32)[..., ::-1].astype(int)
    assert abs(mirrored - to_shape(image, 1, 32)).max() <= 1


def test_shrinking_averages_instead_of_picking() -> None:
    dots = np.zeros((1, 128, 128), np.uint8)
    dots[:, ::4, ::4] = 160  # bilinear weights at the 4×4 pixels nearest to each new one miss these altogether
    resized = to_shape(dots, 1, 32)[..., 2:-2, 2:-2]
    assert abs(resized.astype(int) - 10).max() <= 1


def test_torch_uses_one_thread_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for the next few images, which takes their CPU's time."""
    used, threads = set(), torch.get_num_threads()
    monkeypatch.setattr(prepare, "to_shape", lambda *given: used.add(torch.get_num_threads()) or to_shape(*given))
    torch.set_num_threads(2)
    try:
        prepare_data(SyntheticDataset(images=200), tmp_path / "a.h5")
        assert (used, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(threads)


def test_by_identity_labels_of_shadow_go_on_after_the_others_and_keep_their_names(tmp_path: Path) -> None:
    dataset = SyntheticDataset(images=200, split=Split(by="identity", shadow=4))
    source = prepare_data(dataset, tmp_path / "a.h5")
    with open_dataset(tmp_path / "a.h5") as file:
        assert (file.num_classes, len(file.shadow_class_names)) == (6, 4)
        names = [*file.class_names, *file.shadow_class_names]
        for split in SPLITS:
            labels, index = file.labels(split), file.array(f"{split}/index")
            assert [names[label] for label in labels] == [source.class_names[source.labels[row]] for row in index]
            assert (labels >= 6).all() if split == "shadow" else (labels < 6).all()
            np.testing.assert_array_equal(file.images(split), np.asarray(source.images)[index].transpose(0, 3, 1, 2))
        assert "shadow has 4 of the 10 classes" in file.notes[-1]
    counted = count_prepared(tmp_path / "a.h5")
    for split, counts in check_files(dataset).counts.items():
        np.testing.assert_array_equal(counts, counted.counts[split])
    assert [len(counts) for counts in counted.counts.values()] == [6, 6, 4, 6]
