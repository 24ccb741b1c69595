import json
import math

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from cem.attacks import Fitted
from cem.config import Decoder, Linear, MeanImage, Nearest
from cem.defenses import make_defense
from cem.evaluation import EvaluationError, run_attacks
from cem.store import StoreError, sha256, write_file

COUNTS = {"private": 160, "val": 10, "shadow": 120, "test": 300}
DECODER = Decoder(net="res_normN0C8", epochs=2, batch_size=32)
ATTACKS = (MeanImage(), Linear(), Nearest(), DECODER)


def encode(images):
    """uint8 [n, 1, 16, 16] → [n, 2, 4, 4]: the angle of each pooled pixel, as cosine and sine."""
    angle = 1.5 * math.pi * images.reshape(-1, 1, 4, 4, 4, 4).mean((3, 5)) / 255
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def write_run(folder, change=lambda images: images, encode=encode):
    """Files of a run whose splits hold smooth images, all different."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    data, activations = folder / "data.h5", folder / "activations.h5"
    images = {}
    for split, count in COUNTS.items():
        latent = rng.uniform(size=(count, 1, 4, 4))
        images[split] = (np.kron(latent, np.ones((4, 4))) * 255).round().astype(np.uint8)
        images[split] = change(images[split]) if split == "test" else images[split]
    with write_file(data, "dataset", attrs={"class_names": ["a", "b"]}) as file:
        for split, values in images.items():
            file[f"{split}/images"], file[f"{split}/labels"] = values, np.arange(len(values)) % 2
    with write_file(activations, "activations", {"data": data}) as file:
        for split, values in images.items():
            file[f"{split}/smashed"] = encode(values).astype(np.float16)
            file[f"{split}/labels"] = np.arange(len(values)) % 2
    return data, activations


def attack(folder, *attacks, noise_std=0.05, out="out", seed=0, files=None):
    data, activations = files or write_run(folder)
    corrupt = make_defense(noise_std, ()).corrupt
    run_attacks(attacks, activations, data, corrupt, folder / out, num_images=5, seed=seed)
    return folder / out


def scores(out, name, scope):
    table = pd.read_parquet(out / name / "metrics.parquet")
    return table[table["scope"] == scope]


def test_every_attack_leaves_one_row_an_image_its_images_and_its_record(tmp_path):
    out = attack(tmp_path, *ATTACKS)
    for cfg in ATTACKS:
        table = pd.read_parquet(out / cfg.id / "metrics.parquet")
        assert list(table.columns) == ["scope", "index", "label", "mse", "psnr_db", "ssim"]
        assert table["scope"].value_counts().to_dict() == {"train": 160, "infer": 300}
        assert table["index"].tolist() == [*range(160), *range(300)]
        assert table["label"].tolist() == [i % 2 for i in table["index"]]
        np.testing.assert_allclose(table["psnr_db"], np.minimum(100, -10 * np.log10(table["mse"])), rtol=1e-5)
        record = json.loads((out / cfg.id / "attack.json").read_text())
        assert (record["attack"], record["kind"], record["settings"]) == (cfg.id, cfg.kind, cfg.sparse())
        assert record["knowledge"] == {"data": "private", "images": 160, "encoder": True, "defense": True}
        assert record["scored"] == {"train": 160, "infer": 300}
        assert len(record["curve"]) == (2 if cfg is DECODER else 0)
        assert record["converged"] is None
        assert record["peak_memory_mb"] > 0


def test_stored_images_are_the_first_and_their_error_is_the_scored_one(tmp_path):
    out = attack(tmp_path, Linear())
    with h5py.File(out / "linear" / "reconstructions.h5") as file, h5py.File(tmp_path / "data.h5") as original:
        assert json.loads(file.attrs["sources"]).keys() == {"data", "activations"}
        for scope, split in (("train", "private"), ("infer", "test")):
            images, rebuilt = file[f"{scope}/images"][...], file[f"{scope}/reconstructions"][...]
            assert file[f"{scope}/index"][...].tolist() == [0, 1, 2, 3, 4]
            assert rebuilt.dtype == np.uint8
            np.testing.assert_array_equal(images, original[f"{split}/images"][:5])
            error = ((images / 255 - rebuilt / 255) ** 2).mean((1, 2, 3))
            np.testing.assert_allclose(error, scores(out, "linear", scope)["mse"][:5], atol=2e-4)


def test_the_same_seed_gives_equal_bytes_and_another_seed_does_not(tmp_path):
    files = write_run(tmp_path)
    first, again = (attack(tmp_path, *ATTACKS, out=name, files=files) for name in ("first", "again"))
    other = attack(tmp_path, *ATTACKS, out="other", seed=1, files=files)
    for cfg in ATTACKS:
        for name in ("metrics.parquet", "reconstructions.h5"):
            assert (first / cfg.id / name).read_bytes() == (again / cfg.id / name).read_bytes()
    assert not scores(first, "linear", "infer")["mse"].equals(scores(other, "linear", "infer")["mse"])


def test_all_attacks_on_a_run_are_scored_on_the_same_z_and_trained_on_other_noise(tmp_path, monkeypatch):
    seen = {}

    class Spy:
        def fit(self, knowledge):
            seen["fit"] = knowledge.observe(slice(0, 160), knowledge.generator("corruption"))
            return Fitted(parameters=0)

        def reconstruct(self, smashed, own=None):
            seen.setdefault(len(smashed), []).append(smashed)
            return torch.zeros(len(smashed), 1, 16, 16)

    monkeypatch.setattr("cem.evaluation.make_attack", lambda cfg, progress: Spy())
    attack(tmp_path, MeanImage(), Linear())
    first, second = seen[160]
    assert torch.equal(first, second)
    with h5py.File(tmp_path / "activations.h5") as file:
        clean = torch.from_numpy(file["private/smashed"][...]).float()
    assert (first - clean).std().item() == pytest.approx(0.05, rel=0.05)
    correlation = torch.corrcoef(torch.stack([(first - clean).flatten(), (seen["fit"] - clean).flatten()]))[0, 1]
    assert abs(correlation) < 0.1


def test_nearest_leaves_out_the_scored_image_only_where_the_attacker_owns_it(tmp_path):
    out = attack(tmp_path, Nearest(), Nearest(name="disjoint", data="shadow"), noise_std=0.0)
    assert scores(out, "nearest", "train")["mse"].min() > 0
    both = write_run(tmp_path / "same")
    with h5py.File(both[0], "r+") as data, h5py.File(both[1], "r+") as activations:
        data["test/images"][:160] = data["private/images"][...]
        activations["test/smashed"][:160] = activations["private/smashed"][...]
    with h5py.File(both[1], "r+") as activations:
        activations.attrs["sources"] = json.dumps({"data": sha256(both[0])})
    out = attack(tmp_path / "same", Nearest(), noise_std=0.0, files=both)
    assert scores(out, "nearest", "train")["mse"].min() > 0
    assert scores(out, "nearest", "infer")["mse"][:160].max() == 0


@pytest.mark.parametrize("source", ["private", "shadow"])
def test_test_images_have_no_part_in_any_fit(tmp_path, source):
    attacks = [cfg.model_copy(update={"data": source}) for cfg in ATTACKS]
    clean = attack(tmp_path / "clean", *attacks, files=write_run(tmp_path / "clean"))
    poisoned = attack(tmp_path / "bad", *attacks, files=write_run(tmp_path / "bad", change=lambda x: 255 - x // 2))
    for cfg in attacks:
        before, after = (json.loads((out / cfg.id / "attack.json").read_text()) for out in (clean, poisoned))
        for record in (before, after):
            for row in record["curve"]:
                del row["seconds"]
        assert [before[name] for name in ("curve", "choices")] == [after[name] for name in ("curve", "choices")]
        pd.testing.assert_frame_equal(*(scores(out, cfg.id, "train") for out in (clean, poisoned)), check_exact=True)
        assert not scores(clean, cfg.id, "infer")["mse"].equals(scores(poisoned, cfg.id, "infer")["mse"])
        for name in ("images", "reconstructions"):
            stored = (h5py.File(out / cfg.id / "reconstructions.h5")[f"train/{name}"] for out in (clean, poisoned))
            np.testing.assert_array_equal(*stored)


def test_the_attackers_images_are_of_the_split_it_owns(tmp_path):
    out = attack(tmp_path, MeanImage(data="shadow"))
    assert json.loads((out / "mean_image" / "attack.json").read_text())["knowledge"]["images"] == COUNTS["shadow"]
    with h5py.File(tmp_path / "data.h5") as data, h5py.File(out / "mean_image" / "reconstructions.h5") as file:
        expected = data["shadow/images"][...].mean(0)
        assert abs(file["infer/reconstructions"][0] - expected).max() <= 0.51


def test_activations_of_another_data_set_are_refused(tmp_path):
    data, _ = write_run(tmp_path / "a", change=lambda images: images // 2)
    _, activations = write_run(tmp_path / "b")
    with pytest.raises(StoreError, match="made from another data"):
        attack(tmp_path, MeanImage(), files=(data, activations))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_refused(tmp_path, bad):
    def diverged(images):
        z = encode(images)
        z[7, 1, 2, 3] = bad
        return z

    with pytest.raises(EvaluationError, match="finite activations"):
        attack(tmp_path, MeanImage(), files=write_run(tmp_path, encode=diverged))


def test_an_encoder_that_sends_one_number_is_refused(tmp_path):
    files = write_run(tmp_path, encode=lambda images: np.full((len(images), 2, 4, 4), 0.5))
    with pytest.raises(EvaluationError, match=r"differ, found 0\.5 everywhere"):
        attack(tmp_path, MeanImage(), files=files)
