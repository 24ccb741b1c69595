"""What the measuring stage says of a file of activations."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cem.config import Dropout, MixtureFit, Run, SyntheticDataset, Vgg11
from cem.mixture import load_mixture
from cem.storage.hdf5 import Reader, write_file
from cem.training import measure_mixture

EM = MixtureFit(fit="em")


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def measure(tmp_path):
    """Writes the splits' ẑ and labels, measures, and gives the file's attributes back."""

    def measured(splits, noise_std=0.1, fit=EM, observations=None, **settings) -> dict:
        activations, out = tmp_path / "activations.h5", tmp_path / "mixture.h5"
        with write_file(activations, "activations") as file:
            for split, (z, labels) in zip(("private", "val", "test"), splits, strict=True):
                file.create_dataset(f"{split}/smashed", data=z.view(len(z), -1, 1, 1).numpy().astype(np.float32))
                file.create_dataset(f"{split}/labels", data=labels.numpy())
        run = Run(model=Vgg11(), dataset=SyntheticDataset(), noise_std=noise_std, **settings)
        measure_mixture(run, fit, activations, out, *([observations] if observations else []))
        with Reader(out, kind="mixture") as reader:
            return reader.attrs | {"path": Path(out)}

    return measured


def clouds(n: int, seed: int, d: int = 8, apart: float = 5.0) -> tuple[Tensor, Tensor]:
    """Two separate classes."""
    labels = torch.arange(n) % 2
    return normal(n, d, seed) * 0.3 + apart * labels.unsqueeze(1), labels


def test_attributes(measure) -> None:
    found = measure([clouds(600, 1), clouds(200, 2), clouds(400, 3)])
    truth = math.log(2) + 4 * math.log1p(9)
    assert found["leakage_nats"] == pytest.approx(truth, rel=0.05)
    assert 0 < found["leakage_nats_sem"] < 0.3
    assert found["leakage_member"].endswith("-em")
    assert found["leakage_lower_nats"] <= found["leakage_lower_ceiling"] == math.log(400)
    assert found["leakage_lower_saturated"]
    assert found["leakage_twin_nats"] > found["leakage_lower_nats"]
    assert found["unsaturated_noise_std"] > 0.1
    assert not found["unsaturated_leakage_lower_saturated"]
    assert found["unsaturated_leakage_lower_nats"] < found["unsaturated_leakage_nats"] < found["leakage_nats"]
    assert "400 of test" in found["population"]
    assert not found["masked"]
    with Reader(found["path"], kind="mixture") as reader:
        assert reader.array("test_leakage_nats").mean() == pytest.approx(found["leakage_nats"])


def test_the_population_is_that_of_test_and_not_the_private_one(measure) -> None:
    """Private 99:1, test 50:50, and z says the class and nothing else: log 2, of test."""

    def points(n: int, minority: int, seed: int) -> tuple[Tensor, Tensor]:
        labels = (torch.arange(n) % minority == 0).long()
        return labels.unsqueeze(1) * 5 + 1e-4 * normal(n, 1, seed), labels

    found = measure([points(2000, 100, 1), points(400, 100, 2), points(1000, 2, 3)], fit=MixtureFit(components=1))
    assert found["leakage_nats"] == pytest.approx(math.log(2), abs=0.02)
    assert found["leakage_lower_nats"] == pytest.approx(math.log(2), abs=0.02)


def test_no_noise(measure) -> None:
    found = measure([clouds(300, 1), clouds(100, 2), clouds(200, 3)], noise_std=0.0)
    assert found["leakage_nats"] == math.inf
    assert "leakage_nats_sem" not in found
    assert "leakage_member" not in found
    assert found["leakage_lower_saturated"]
    assert found["leakage_lower_nats"] == pytest.approx(math.log(200))
    assert found["unsaturated_noise_std"] > 0
    assert math.isfinite(found["unsaturated_leakage_nats"])
    assert found["unsaturated_leakage_lower_nats"] <= found["unsaturated_leakage_nats"]


def test_several_observations_are_a_channel_with_less_noise(measure) -> None:
    splits = [clouds(600, 1), clouds(200, 2), clouds(400, 3)]
    seen = measure(splits, noise_std=0.2, observations=(4, 1))
    assert (seen["noise_std"], seen["noise_std_seen4"]) == (0.2, 0.1)
    truth = [math.log(2) + 4 * math.log1p(0.09 / noise_std**2) for noise_std in (0.2, 0.1)]
    assert [seen["leakage_nats"], seen["leakage_nats_seen4"]] == pytest.approx(truth, rel=0.05)
    once = measure(splits, noise_std=0.1)
    assert seen["leakage_lower_nats_seen4"] == pytest.approx(once["leakage_lower_nats"])
    assert seen["leakage_nats_seen4"] == pytest.approx(once["leakage_nats"], rel=1e-2)
    assert "leakage_nats_seen1" not in seen


def test_masks_are_said(measure) -> None:
    splits = [clouds(300, 1), clouds(100, 2), clouds(200, 3)]
    assert measure(splits, defenses=(Dropout(),))["masked"]


def test_outliers_cost_little(measure) -> None:
    """One test image in 200 is a thousand times as far out as the rest, and no private one is."""
    (z, labels), private = clouds(400, 3), clouds(600, 1)
    truth = math.log(2) + 4 * math.log1p(9)
    z[::200] += 1000 * normal(2, 8, 4)
    found = measure([private, clouds(200, 2), (z, labels)])
    assert truth < found["leakage_nats"] < 1.15 * truth


def test_outliers_among_the_private_images_cost_little(measure) -> None:
    splits = [clouds(n, seed) for seed, n in enumerate((1200, 200, 1000))]
    for z, _ in splits:
        z[::100] += 100 * normal(len(z[::100]), 8, 5)
    truth = math.log(2) + 4 * math.log1p(9)
    found = measure(splits)
    assert truth < found["leakage_nats"] < 1.15 * truth


def test_the_unit_of_z_does_not_matter(measure) -> None:
    splits = [clouds(600, 1), clouds(200, 2), clouds(400, 3)]
    one = measure(splits)
    small = measure([(1e-4 * z, labels) for z, labels in splits], noise_std=1e-5)
    for name in ("leakage_nats", "leakage_nats_sem", "bound_nats", "leakage_lower_nats", "leakage_twin_nats"):
        assert small[name] == pytest.approx(one[name], rel=2e-3), name
    assert small["leakage_member"] == one["leakage_member"]


def test_a_class_of_few_images_has_few_components(measure) -> None:
    def few(n: int, seed: int) -> tuple[Tensor, Tensor]:
        z, labels = clouds(n, seed)
        labels[:2] = 2
        return z, labels

    found = measure([few(300, 1), few(100, 2), few(200, 3)])
    assert math.isfinite(found["leakage_nats"])
    assert json.loads(found["notes"]) == [
        "fitted with fewer than 3 components, for want of images: class 2 (2 images): 1"
    ]
    mixture = load_mixture(found["path"])
    assert mixture.notes == tuple(json.loads(found["notes"]))
    assert (mixture.weights[2] > 0).tolist() == [True, False, False]
    torch.testing.assert_close(mixture.means[2, 0], few(300, 1)[0][:2].mean(0))


def test_a_low_rank_part_is_not_given_up(measure) -> None:
    """Two clouds in a plane each, in a saturated layer: some dimensions hardly vary, and decide all without noise."""

    def saturated(n: int, seed: int) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(0)
        weight, offset = normal(12, 128, 1) / 12**0.5, 2 * torch.randn(128, generator=draws)
        hidden = normal(n, 12, seed) * (2 * torch.rand(n, 1, generator=torch.Generator().manual_seed(seed)))
        return torch.sigmoid(2 * (hidden @ weight + offset)), torch.zeros(n, dtype=torch.int64)

    found = measure(
        [saturated(1200, 1), saturated(300, 2), saturated(600, 3)],
        noise_std=0.025,
        fit=MixtureFit(components=2, covariance="pca", rank=8, fit="em"),
    )
    mixture = load_mixture(found["path"])
    assert (mixture.spread > 0).any()
    assert mixture.notes == ()
