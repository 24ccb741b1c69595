"""The judge of reconstructions: fitted to shadow images alone, and right where the answer is known."""

import json
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from cem.attacks import Fitted
from cem.config import Nearest, SyntheticDataset, Vgg11
from cem.defenses import make_defense
from cem.evaluation import Network, Victim, fit_evaluator, load_evaluator, run_attacks
from cem.storage.files import StoreError, sha256
from cem.storage.hdf5 import SPLITS, open_activations, open_dataset, write_file
from cem.storage.manifest_records import EvaluatorRecord, Manifest
from cem.storage.records import read_record
from cem.storage.tensors import CheckpointError, load_checkpoint

COUNTS = {"private": 120, "val": 10, "shadow": 120, "test": 1000}
SET = SyntheticDataset()


def write_data(folder: Path, poisoned=(), counts=COUNTS, classes=3) -> Path:
    """Stripes whose direction is the class, under noise. Splits that are poisoned hold other images and classes."""
    folder.mkdir(exist_ok=True)
    place = np.arange(32)
    stripes = [place[:, None] + 0 * place, 0 * place[:, None] + place, place[:, None] + place]
    with write_file(folder / "data.h5", "dataset", attrs={"class_names": list("abc")}) as file:
        for number, (split, count) in enumerate(counts.items()):
            rng = np.random.default_rng([number, split in poisoned])
            labels = rng.permutation(count) % classes
            phase = rng.uniform(0, 6.3, (count, 1, 1))
            waves = np.stack([stripes[label] for label in labels]) * 0.8 + phase
            images = 0.5 + 0.3 * np.sin(waves) + 0.1 * rng.normal(size=waves.shape)
            images = np.clip(images, 0, 1) if split not in poisoned else rng.uniform(size=images.shape)
            file[f"{split}/images"] = (images[:, None] * 255).round().astype(np.uint8)
            file[f"{split}/labels"] = labels
    with write_file(folder / "activations.h5", "activations", {"data": folder / "data.h5"}) as file:
        for split, count in counts.items():
            file[f"{split}/smashed"] = np.random.default_rng(0).normal(size=(count, 1, 2, 2)).astype(np.float16)
            file[f"{split}/labels"] = np.zeros(count, np.int64)
    return folder


def fit(folder: Path) -> Path:
    fit_evaluator(SET, folder / "data.h5", folder / "judge.safetensors", folder / "judge.json")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cem.evaluation.evaluator.EPOCHS", 30)
        return fit(write_data(tmp_path_factory.mktemp("data")))


@pytest.fixture(autouse=True)
def short(monkeypatch) -> None:
    monkeypatch.setattr("cem.evaluation.evaluator.EPOCHS", 2)


@contextmanager
def judge(folder: Path):
    with open_dataset(folder / "data.h5") as data:
        yield data, load_evaluator(folder / "judge.safetensors", data, torch.device("cpu"))


class Answers:
    """An attack that gives prepared images, for train first."""

    def __init__(self, images: torch.Tensor) -> None:
        self.left = images

    def fit(self, knowledge) -> Fitted:
        return Fitted(parameters=0)

    def reconstruct(self, smashed, own=None, labels=None):
        answer, self.left = self.left[: len(smashed)], self.left[len(smashed) :]
        return answer


def score(folder: Path, out: Path, monkeypatch, change, judged: bool = True, data_of: str = "private") -> pd.DataFrame:
    """Scores of reconstructions that `change` makes of the images."""
    with judge(folder) as (data, evaluator), open_activations(folder / "activations.h5") as activations:
        images = {split: torch.from_numpy(data.images(split)).float() / 255 for split in ("private", "test")}
        answers = torch.cat([change(one) for one in images.values()])
        monkeypatch.setattr("cem.evaluation.run.make_attack", lambda cfg, store: Answers(answers))
        network = Network(Vgg11(), nn.Identity(), nn.Identity())
        victim = Victim(data, activations, make_defense(0.0, []), network, 0, torch.device("cpu"))
        run_attacks([Nearest(data=data_of)], victim, out, num_images=2, evaluator=evaluator if judged else None)
    return pd.read_parquet(out / "nearest/metrics.parquet")


def test_it_tells_the_classes_apart_and_says_how_well(files) -> None:
    found = read_record(files / "judge.json", EvaluatorRecord, "fit_evaluator").facts
    assert (found.split, found.images, found.held_out_images) == ("shadow", 108, 12)  # a tenth of each class
    assert found.held_out_accuracy > 0.9
    assert found.unavailable == ""


def test_a_perfect_reconstruction_is_all_that_it_can_be(files, tmp_path, monkeypatch) -> None:
    table = score(files, tmp_path, monkeypatch, lambda images: images)
    assert table["embedding_similarity"].to_numpy() == pytest.approx(1, abs=1e-5)
    assert table["recognised"].equals(table["recognised_original"].rename("recognised"))
    assert table["recognised_original"].mean() > 0.9
    assert table["identified"].all()
    infer = table[table["scope"] == "infer"]
    assert infer["identified_of_1000"].all()
    assert table.loc[table["scope"] == "train", "identified_of_1000"].isna().all()  # 120 private images


def test_the_mean_image_is_found_by_chance_and_is_one_class(files, tmp_path, monkeypatch) -> None:
    table = score(files, tmp_path, monkeypatch, lambda images: images.mean(0, keepdim=True).expand(images.shape))
    infer = table[table["scope"] == "infer"]
    assert infer["identified_of_1000"].sum() == 1  # of 1,000 images that all are compared with each other
    assert infer["identified"].mean() <= 0.03  # 1 % ± 3 × 0.3, in galleries of images that are not all scored in them
    assert infer["recognised"].mean() == pytest.approx(1 / 3, abs=0.01)
    assert infer["embedding_similarity"].mean() < 0.5


def test_another_images_reconstruction_is_recognised_by_chance_and_unlike(files, tmp_path, monkeypatch) -> None:
    table = score(files, tmp_path, monkeypatch, lambda images: images.roll(1, 0))
    assert table["identified"].mean() < 0.05  # where the other image is not in the gallery
    assert table["recognised"].mean() == pytest.approx(1 / 3, abs=0.05)
    infer = table[table["scope"] == "infer"]
    same = infer["label"].to_numpy() == np.roll(infer["label"].to_numpy(), 1)
    likeness = infer["embedding_similarity"].to_numpy()
    assert likeness[same].mean() > likeness[~same].mean() + 0.5
    assert abs(likeness.mean()) < 0.3


def test_it_never_saw_private_or_test_images(tmp_path) -> None:
    clean = fit(write_data(tmp_path / "clean"))
    others = fit(write_data(tmp_path / "others", poisoned={"private", "val", "test"}))
    shadow = fit(write_data(tmp_path / "shadow", poisoned={"shadow"}))
    for name in ("judge.safetensors", "judge.json"):
        assert (clean / name).read_bytes() == (others / name).read_bytes()
        assert (clean / name).read_bytes() != (shadow / name).read_bytes()


def test_the_same_images_give_the_same_bits_whatever_was_drawn_before(tmp_path) -> None:
    first = (fit(write_data(tmp_path / "a")) / "judge.safetensors").read_bytes()
    torch.manual_seed(7)
    torch.rand(10)
    before = torch.get_rng_state()
    assert (fit(write_data(tmp_path / "b")) / "judge.safetensors").read_bytes() == first
    assert torch.equal(torch.get_rng_state(), before)


def test_the_evaluator_of_other_images_is_refused(files, tmp_path) -> None:
    other = write_data(tmp_path / "other", poisoned={"shadow"})
    (other / "judge.safetensors").write_bytes((files / "judge.safetensors").read_bytes())
    with pytest.raises(StoreError, match=r"data\.h5: expected the shadow images .* rerun fit_evaluator"), judge(other):
        pass


def test_a_damaged_or_absent_file_is_refused(tmp_path) -> None:
    write_data(tmp_path)
    for content in (None, b"not this"):
        if content is not None:
            (tmp_path / "judge.safetensors").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"judge\.safetensors: expected a checkpoint"), judge(tmp_path):
            pass


def test_images_of_one_class_have_no_evaluator_and_the_reason_is_told(tmp_path, monkeypatch) -> None:
    folder = fit(write_data(tmp_path / "one", classes=1))
    assert load_checkpoint(folder / "judge.safetensors", "evaluator")[0] == {}
    table = score(folder, tmp_path / "out", monkeypatch, lambda images: images)
    assert not {"recognised", "recognised_original", "embedding_similarity"} & set(table)
    assert table["identified"].all()
    manifest = read_record(tmp_path / "out/nearest/manifest.json", Manifest, "attack")
    assert manifest.evaluator.unavailable == "the shadow images are of 1 class: there is nothing to tell apart"


def test_classes_that_are_too_small_are_fitted_whole(tmp_path) -> None:
    facts = read_record(
        fit(write_data(tmp_path, counts=dict.fromkeys(SPLITS, 6))) / "judge.json", EvaluatorRecord, "fit_evaluator"
    ).facts
    assert (facts.images, facts.held_out_images, facts.held_out_accuracy) == (6, 0, None)


def test_a_class_that_shadow_lacks_is_never_recognised(tmp_path, monkeypatch) -> None:
    folder = write_data(tmp_path / "two")
    with h5py.File(folder / "data.h5", "r+") as file:
        file["shadow/labels"][...] = file["shadow/labels"][...] % 2
    with h5py.File(folder / "activations.h5", "r+") as file:
        file.attrs["sources"] = json.dumps({"data": sha256(folder / "data.h5")})
    monkeypatch.setattr("cem.evaluation.evaluator.EPOCHS", 30)
    table = score(fit(folder), tmp_path / "out", monkeypatch, lambda images: images)
    assert not table["recognised"][table["label"] == 2].any()
    assert table["recognised"][table["label"] == 1].mean() > 0.9


def test_by_identity_it_compares_images_but_says_no_class(tmp_path, monkeypatch) -> None:
    """Shadow holds other persons, whose labels go on after the defender's."""
    folder = write_data(tmp_path / "apart")
    with h5py.File(folder / "data.h5", "r+") as file:
        file.attrs["shadow_class_names"] = json.dumps(["x", "y", "z"])
        file["shadow/labels"][...] = file["shadow/labels"][...] + 3
    with h5py.File(folder / "activations.h5", "r+") as file:
        file.attrs["sources"] = json.dumps({"data": sha256(folder / "data.h5")})
    same = fit(write_data(tmp_path / "same"))
    fit(folder)
    apart, of_same = (load_checkpoint(at / "judge.safetensors", "evaluator")[0] for at in (folder, same))
    assert apart.keys() == of_same.keys()
    assert all(torch.equal(apart[name], of_same[name]) for name in apart), "as good as one of classes that are scored"
    for data_of, has_class_mean in (("shadow", False), ("private", True)):
        out = tmp_path / data_of
        table = score(folder, out, monkeypatch, lambda images: images, data_of=data_of)
        assert not {"recognised", "recognised_original"} & set(table)
        assert table["embedding_similarity"].to_numpy() == pytest.approx(1, abs=1e-5)
        assert table["mse_class_mean"].notna().all() == has_class_mean
        assert table["mse_class_mean"].isna().all() != has_class_mean
        assert table["mse_mean_image"].notna().all()
        facts = read_record(out / "nearest/manifest.json", Manifest, "attack").evaluator
        assert "of other persons" in facts.classes_unknown
        assert (facts.unavailable, facts.held_out_images) == ("", 12)


def test_nothing_judges_where_no_evaluator_is_given(files, tmp_path, monkeypatch) -> None:
    table = score(files, tmp_path, monkeypatch, lambda images: images, judged=False)
    assert "recognised" not in table
    assert json.loads((tmp_path / "nearest/manifest.json").read_text())["evaluator"] is None


def test_large_images_cost_no_more_than_those_it_is_limited_to(files) -> None:
    with judge(files) as (_, evaluator):
        small = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
        large = small.repeat_interleave(3, 2).repeat_interleave(3, 3)
        assert torch.allclose(evaluator.net.embed(large), evaluator.net.embed(small), atol=1e-4)
