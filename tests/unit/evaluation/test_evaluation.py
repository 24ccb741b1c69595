import json
import math
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch

from cem.attacks import AttackError, Fitted
from cem.attacks.linear import LinearAttack
from cem.config import (
    ClassMean,
    Decoder,
    Dropout,
    Linear,
    LocalDp,
    Loss,
    Lpips,
    MeanImage,
    MlxtendDataset,
    Nearest,
    NoPeek,
    Optimization,
    Run,
    ShadowModel,
    ShapedNoise,
    StartingDecoder,
    Vgg11,
    Vib,
)
from cem.defenses import make_defense
from cem.evaluation import EvaluationError, Network, Victim, attack_run, run_attacks
from cem.evaluation.run import files_of
from cem.evaluation.scoring import Scoring, pair_metrics
from cem.evaluation.tuning import as_tuned
from cem.jobs.interruption import Interrupted
from cem.jobs.process import make_generator
from cem.jobs.state import StateStore
from cem.metrics import MetricError
from cem.storage.files import StoreError, sha256
from cem.storage.hdf5 import open_activations, open_dataset, write_file
from cem.storage.job_records import AttackRecord, WeightsFile
from cem.storage.manifest_records import Manifest
from cem.storage.records import read_record
from cem.storage.weights import read_header

COUNTS = {"private": 160, "val": 10, "shadow": 120, "test": 300}
DECODER = Decoder(net="res_normN0C8", epochs=2, batch_size=32, lr=1e-3)
ATTACKS = (MeanImage(), ClassMean(), Linear(), Nearest(), DECODER)
PAIR = pair_metrics(16, (), torch.device("cpu"))
COLUMNS = [
    "scope", "index", "label", "mse", "psnr_db", "ssim", "identified", "mse_mean_image", "mse_class_mean",
]  # fmt: skip


class Bend(torch.nn.Module):
    """`encode` as a network."""

    def forward(self, images):
        return torch.from_numpy(encode(255 * images.numpy())).float()


class Bright(torch.nn.Module):
    """A classifier whose class is whether the first angle's cosine is positive."""

    def forward(self, z):
        return torch.stack([-z[:, 0, 0, 0], z[:, 0, 0, 0]], 1)


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


@contextmanager
def opened(files, noise_std=0.1, defenses=(), seed=0):
    """The victim whose files these are."""
    with open_dataset(files[0]) as data, open_activations(files[1]) as activations:
        network = Network(Vgg11(), Bend(), Bright())
        yield Victim(data, activations, make_defense(noise_std, defenses), network, seed, torch.device("cpu"))


def attack(folder, *attacks, noise_std=0.05, out="out", seed=0, files=None, defenses=()):
    with opened(files or write_run(folder), noise_std, defenses, seed) as victim:
        run_attacks(attacks, victim, folder / out, num_images=5)
    return folder / out


def scores(out, name, scope):
    table = pd.read_parquet(out / name / "metrics.parquet")
    return table[table["scope"] == scope]


def test_every_attack_leaves_one_row_an_image_its_images_and_its_record(tmp_path):
    out = attack(tmp_path, *ATTACKS)
    for cfg in ATTACKS:
        table = pd.read_parquet(out / cfg.id / "metrics.parquet")
        assert list(table.columns) == COLUMNS
        assert table["scope"].value_counts().to_dict() == {"train": 160, "infer": 300}
        assert table["index"].tolist() == [*range(160), *range(300)]
        assert table["label"].tolist() == [i % 2 for i in table["index"]]
        np.testing.assert_allclose(table["psnr_db"], np.minimum(100, -10 * np.log10(table["mse"])), rtol=1e-5)
        record = json.loads((out / cfg.id / "attack.json").read_text())
        assert (record["attack"], record["kind"], record["settings"]) == (cfg.id, cfg.kind, cfg.sparse())
        assert record["knowledge"] == {"data": "private", "images": 160, "label": cfg.knowledge_label}
        assert len(record["curve"]) == (2 if cfg is DECODER else 0)
        assert record["converged"] is None
        assert record["peak_memory_mb"] > 0


def test_each_attack_of_a_job_counts_its_own_part_of_it(tmp_path):
    files, began = write_run(tmp_path), time.monotonic()
    out = attack(tmp_path, MeanImage(), Linear(), files=files)
    whole, parts = time.monotonic() - began, []
    for name in ("mean_image", "linear"):
        record = read_record(out / name / "attack.json", AttackRecord, "attack")
        (part,) = record.attempts
        assert (part.ended, part.lost_seconds, record.lost_seconds) == ("done", 0, 0)
        assert part.seconds >= record.fit_seconds + record.score_seconds
        assert part.cpu_seconds > 0
        assert part.gpu_seconds == part.seconds * torch.cuda.device_count()
        parts.append(part.seconds)
    assert sum(parts) <= whole


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
        for name in ("metrics.parquet", "reconstructions.h5", "manifest.json"):
            assert (first / cfg.id / name).read_bytes() == (again / cfg.id / name).read_bytes()
    assert not scores(first, "linear", "infer")["mse"].equals(scores(other, "linear", "infer")["mse"])


def test_all_attacks_on_a_run_are_scored_on_the_same_z_and_trained_on_other_noise(tmp_path, monkeypatch):
    seen = {}

    class Spy:
        def fit(self, knowledge):
            seen["fit"] = knowledge.observe(slice(0, 160), knowledge.generator("corruption"))
            return Fitted(parameters=0)

        def reconstruct(self, smashed, own=None, labels=None):
            seen.setdefault(len(smashed), []).append(smashed)
            return torch.zeros(len(smashed), 1, 16, 16)

    monkeypatch.setattr("cem.evaluation.run.make_attack", lambda cfg, store: Spy())
    attack(tmp_path, Nearest(), Linear())
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


@pytest.mark.parametrize("absent", ["data.h5", "activations.h5", "model.safetensors"])
def test_an_absent_input_is_named_by_the_job(tmp_path, absent):
    data, activations = write_run(tmp_path)
    model = tmp_path / "model.safetensors"
    model.write_bytes(b"weights")
    (tmp_path / absent).unlink()
    run = Run(dataset=MlxtendDataset())
    with pytest.raises(StoreError, match=rf"{absent}: expected a file"):
        attack_run(
            run, [MeanImage()], activations=activations, data=data, model=model, folder=tmp_path / "out", num_images=5
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_activations_that_are_not_finite_are_refused(tmp_path, bad):
    def diverged(images):
        z = encode(images)
        z[7, 1, 2, 3] = bad
        return z

    with pytest.raises(EvaluationError, match="finite activations"):
        attack(tmp_path, MeanImage(), files=write_run(tmp_path, encode=diverged))


@pytest.mark.parametrize("noise_std", [0.0, 0.05])
def test_an_encoder_that_sends_a_constant_is_a_result_in_which_no_attack_beats_the_mean_image(tmp_path, noise_std):
    constant = np.linspace(-1, 1, 32).reshape(1, 2, 4, 4)
    files = write_run(tmp_path, encode=lambda images: np.repeat(constant, len(images), axis=0))
    out = attack(tmp_path, *ATTACKS, noise_std=noise_std, files=files)
    for cfg in ATTACKS:
        assert json.loads((out / cfg.id / "attack.json").read_text())["constant"] is True
        table = scores(out, cfg.id, "infer")
        if cfg.kind != "class_mean":  # which is told the class
            assert table["mse"].mean() > 0.99 * table["mse_mean_image"].mean()
    linear = scores(out, "linear", "infer")
    np.testing.assert_allclose(
        linear["mse"].mean(), linear["mse_mean_image"].mean(), rtol=1e-5 if not noise_std else 0.1
    )


def test_an_encoder_that_sends_two_values_does_not_send_a_constant(tmp_path):
    files = write_run(tmp_path, encode=lambda images: np.where(images[:, :, :4, :4] > 127, 0.5, 0.25).repeat(2, axis=1))
    out = attack(tmp_path, MeanImage(), files=files)
    assert json.loads((out / "mean_image/attack.json").read_text())["constant"] is False


def test_the_worst_protected_images_are_kept_beside_the_first(tmp_path):
    out = attack(tmp_path, Linear())
    with h5py.File(out / "linear" / "reconstructions.h5") as file:
        for scope in ("train", "infer"):
            errors = scores(out, "linear", scope)["mse"].to_numpy()
            index, images = file[f"{scope}/worst/index"][...], file[f"{scope}/worst/images"][...]
            assert index.tolist() == np.argsort(errors, kind="stable")[:5].tolist()
            rebuilt = file[f"{scope}/worst/reconstructions"][...]
            error = ((images / 255 - rebuilt / 255) ** 2).mean((1, 2, 3))
            np.testing.assert_allclose(error, errors[index], atol=2e-4)


def test_yardsticks_are_those_of_the_attackers_images(tmp_path):
    out = attack(
        tmp_path,
        MeanImage(),
        ClassMean(),
        Linear(data="shadow", data_size=40),
        MeanImage(name="few", data="shadow", data_size=40),
    )
    table = {
        name: pd.read_parquet(out / name / "metrics.parquet") for name in ("mean_image", "class_mean", "linear", "few")
    }
    assert table["mean_image"]["mse"].equals(table["mean_image"]["mse_mean_image"].rename("mse"))
    assert table["class_mean"]["mse"].equals(table["mean_image"]["mse_class_mean"].rename("mse"))
    assert table["few"]["mse"].equals(table["linear"]["mse_mean_image"].rename("mse"))
    assert not table["few"]["mse"].equals(table["mean_image"]["mse"])


def test_several_observations_are_averaged_and_hidden_values_left_out(tmp_path, monkeypatch):
    seen = {}

    class Spy:
        def fit(self, knowledge):
            assert knowledge.masked
            seen["fit"] = knowledge.observe(slice(0, 160), knowledge.generator("corruption"))
            return Fitted(parameters=0)

        def reconstruct(self, smashed, own=None, labels=None):
            seen[len(smashed)] = smashed
            return torch.zeros(len(smashed), 1, 16, 16)

    monkeypatch.setattr("cem.evaluation.run.make_attack", lambda cfg, store: Spy())
    attack(tmp_path, Linear(observations=9), noise_std=0.3, defenses=[Dropout(rate=0.5)])
    with h5py.File(tmp_path / "activations.h5") as file:
        clean = torch.from_numpy(file["private/smashed"][...]).float()
    for z in (seen["fit"], seen[160]):
        error = (z - clean)[z != 0]
        assert (z == 0).float().mean() < 0.01  # hidden nine times of nine
        assert abs(error.mean()) < 0.02
        assert error.std().item() == pytest.approx(0.3 / 4.5**0.5, rel=0.1)  # about half of the nine are seen


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.8])
def test_dropout_hides_its_fraction_of_what_attackers_are_fitted_to_and_scored_on(tmp_path, monkeypatch, rate):
    seen = []

    class Spy:
        def fit(self, knowledge):
            seen.append(knowledge.observe(slice(0, 160), knowledge.generator("corruption")))
            return Fitted(parameters=0)

        def reconstruct(self, smashed, own=None, labels=None):
            seen.append(smashed)
            return torch.zeros(len(smashed), 1, 16, 16)

    monkeypatch.setattr("cem.evaluation.run.make_attack", lambda cfg, store: Spy())
    attack(tmp_path, Linear(), noise_std=0.3, defenses=[Dropout(rate=rate)])
    assert [len(z) for z in seen] == [160, 160, 300]
    for z in seen:
        within = 5 * (rate * (1 - rate) / z.numel()) ** 0.5  # standard errors
        assert (z == 0).double().mean().item() == pytest.approx(rate, abs=within)


def test_an_attacker_of_few_images_has_those_of_one_with_fewer(tmp_path):
    with opened(write_run(tmp_path)) as victim:
        sets = [set(victim.owned(Linear(data="shadow", data_size=n)).tolist()) for n in (10, 50, 120)]
        assert sets[0] < sets[1] < sets[2] == set(range(120))
        with pytest.raises(AttackError, match="data_size is 121, but shadow has 120 images"):
            victim.owned(Linear(data="shadow", data_size=121))


@pytest.mark.parametrize(
    ("cfg", "granted"),
    [
        (Linear(), set()),
        (Linear(labels=True), {"labels"}),
        (Linear(encoder="weights"), {"encoder"}),
        (MeanImage(encoder="none"), {"server"}),
        (ShadowModel(), {"labels", "server", "seen"}),
    ],
)
def test_knowledge_holds_what_is_granted_and_nothing_else(tmp_path, cfg, granted):
    with opened(write_run(tmp_path)) as victim:
        knowledge = victim.knowledge(cfg)
        assert {
            name for name in ("labels", "encoder", "server", "seen") if getattr(knowledge, name) is not None
        } == granted
        assert knowledge.encoder is not victim.network.encoder  # a copy: nothing done to it reaches the run
        if cfg.encoder == "none":
            with pytest.raises(AttackError, match="cannot ask the encoder"):
                knowledge.observe(slice(0, 2), knowledge.generator("corruption"))
        else:
            with pytest.raises(IndexError):
                knowledge.observe(torch.tensor([160]), knowledge.generator("corruption"))


@pytest.mark.parametrize(
    ("noise_std", "defenses", "differs"),
    [
        (0.1, (), False),
        (0.0, (LocalDp(mechanism="laplace"),), False),
        (0.0, (ShapedNoise(std=0.1, shape="fisher"),), True),
        (0.0, (Vib(),), True),
    ],
    ids=["gaussian", "laplace", "shaped", "vib"],
)
def test_an_attacker_knows_the_noise_of_each_number_where_it_differs(tmp_path, noise_std, defenses, differs):
    with opened(write_run(tmp_path), noise_std, defenses) as victim:
        victim.defense.build((2, 4, 4), torch.Generator())
        knowledge = victim.knowledge(Linear())
        assert (knowledge.stds is not None) == differs
        if differs:
            clean = torch.rand(3, 2, 4, 4)
            torch.testing.assert_close(knowledge.stds(clean), victim.defense.channel.stds(clean))


def test_what_an_attacker_has_seen_are_z_of_private_images_that_nothing_ties_to_them(tmp_path):
    with opened(write_run(tmp_path), noise_std=0.0) as victim:
        clean = victim.observe("private", 1)(slice(None), torch.Generator())
        seen = victim.knowledge(ShadowModel()).seen
        other = victim.knowledge(ShadowModel(data="shadow", seed=1)).seen
    rows = torch.cdist(seen.flatten(1), clean.flatten(1)).argmin(1)
    assert torch.equal(seen, clean[rows])
    assert sorted(rows.tolist()) == list(range(160))
    assert (rows == torch.arange(160)).float().mean() < 0.05
    assert torch.equal(seen, other)


def test_an_attacker_has_seen_each_z_once_under_noise_that_is_not_scored(tmp_path):
    with opened(write_run(tmp_path), noise_std=0.1) as victim:
        clean = victim.observe("private", 1)  # under the noise of a generator that is given
        seen, few = (victim.knowledge(ShadowModel(seen=count)).seen for count in (10_000, 30))
        again = victim.knowledge(ShadowModel()).seen
        mean = victim.knowledge(ShadowModel(observations=100)).seen
        scored = clean(slice(None), make_generator(0, "scoring/train", "cpu"))
        assert torch.equal(seen, again)
        assert len(few) == 30
        rows = torch.cdist(mean.flatten(1), scored.flatten(1)).argmin(1)
        assert sorted(rows.tolist()) == list(range(160))
        noise = [(one - mean).flatten() for one in (seen, scored[rows])]
        assert noise[0].std().item() == pytest.approx(0.1, rel=0.05)
        assert abs(torch.corrcoef(torch.stack(noise))[0, 1]) < 0.1


class Counting(StateStore):
    """Keeps the state in memory, and asks to stop after so many batches."""

    def __init__(self, stop_after):
        self.left, self.state = stop_after, None

    def load(self):
        return self.state

    def save(self, tensors, header):
        self.state = ({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(header)))

    def asked_to_stop(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("inside", [False, True])
def test_scoring_goes_on_where_it_stopped_with_the_same_bits(tmp_path, monkeypatch, inside):
    """Asked to stop between chunks, and in the middle of one by the attack itself."""
    monkeypatch.setattr("cem.attacks.base.CHUNK_PIXELS", 64 * 16 * 16)
    with opened(write_run(tmp_path)) as victim:
        linear = LinearAttack()
        linear.fit(victim.knowledge(Linear()))
        whole = Scoring(victim, Linear(), 5, StateStore(), PAIR)
        whole.run(linear)

        class Stopping(LinearAttack):
            def reconstruct(self, smashed, own=None, labels=None):
                if inside and store.asked_to_stop():
                    raise Interrupted
                return linear.reconstruct(smashed)

        store, stops = Counting(2), 0
        while True:
            scoring = Scoring(victim, Linear(), 5, store, PAIR)
            try:
                scoring.run(Stopping())
                break
            except Interrupted:
                stops, store.left = stops + 1, 3
        assert stops >= 2
        pd.testing.assert_frame_equal(scoring.table(), whole.table(), check_exact=True)
        for name, values in whole.images().items():
            np.testing.assert_array_equal(scoring.images()[name], values)


def test_the_manifest_says_what_the_number_rests_on(tmp_path):
    files = write_run(tmp_path)
    with h5py.File(files[0], "r+") as data:
        data["test/images"][7] = data["private/images"][3]  # an image of the attacker's among the scored ones
    with h5py.File(files[1], "r+") as activations:
        activations.attrs["sources"] = json.dumps({"data": sha256(files[0])})
    out = attack(tmp_path, Linear(), DECODER, files=files)
    linear, decoder = (json.loads((out / name / "manifest.json").read_text()) for name in ("linear", "decoder"))
    assert linear["scored"] == decoder["scored"]
    assert {scope: row["also_owned_by_attacker"] for scope, row in linear["scored"].items()} == {
        "train": 160,
        "infer": 1,
    }
    assert linear["disjoint_from_infer"] is False
    assert linear["defense"]["noise_std"] == 0.05
    assert decoder["seeds"] == {"run": 0, "attack": 0}
    assert decoder["budget"]["epochs"] == 2
    assert linear["knowledge"] == {
        "split": "private", "images": 160, "sha256": linear["scored"]["train"]["sha256"], "encoder": "query",
        "observations": 1, "labels": False, "defense": True, "seen": 0,
    }  # fmt: skip


def test_the_manifest_names_every_defence_that_acted(tmp_path):
    defenses = [Dropout(rate=0.3), NoPeek(weight=0.5)]
    out = attack(tmp_path, MeanImage(), noise_std=0.1, defenses=defenses)
    found = read_record(out / "mean_image" / "manifest.json", Manifest, "attack")
    assert found.defense.noise_std == 0.1
    assert found.defense.settings == [{"kind": "dropout", "rate": 0.3}, {"kind": "nopeek", "weight": 0.5}]
    assert found.version == Manifest.VERSION


def tuned(folder, **changes) -> tuple[Decoder, Path]:
    """An attack without a rate, and its record on the reference, with changes."""
    cfg = DECODER.model_copy(update={"lr": None, "lr_sweep": (1e-3, 1e-2), "epochs": 1})
    attack(folder, cfg)
    path = folder / "out" / cfg.id / "attack.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return cfg, path


def test_the_rate_is_what_the_attack_chose_on_the_reference(tmp_path):
    cfg, path = tuned(tmp_path, choices={"lr": 0.25, "net": "unet_C8", "loss": {"l1": 1.0}})
    expected = {"lr": 0.25, "net": "unet_C8", "loss": Loss(l1=1.0), "tune": "none", "lr_sweep": Decoder().lr_sweep}
    assert as_tuned(cfg, path) == cfg.model_copy(update=expected)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"settings": {"kind": "linear"}}, EvaluationError, "expected a result with the settings"),
        ({"choices": {}}, EvaluationError, r"expected what decoder chose .*, found \{\}"),
        ({"choices": None}, StoreError, "choices: input should be an object, found None"),
        ({"version": 9}, StoreError, "found version 9"),
    ],
)
def test_a_record_that_does_not_say_the_rate_is_refused(tmp_path, changes, error, message):
    cfg, path = tuned(tmp_path, **changes)
    with pytest.raises(error, match=rf"attack\.json: .*{message}.*elete it and rerun attack"):
        as_tuned(cfg, path)


def test_lpips_is_refused_without_its_weights_before_any_attack(tmp_path):
    settings = (Lpips(trunk=str(tmp_path / "absent.pth")),)
    with opened(write_run(tmp_path)) as victim, pytest.raises(MetricError, match="no such file"):
        run_attacks([MeanImage()], victim, tmp_path / "out", num_images=5, metrics=settings)
    assert not (tmp_path / "out").exists()


def test_fewer_images_are_scored_where_the_settings_say_so(tmp_path):
    out = attack(tmp_path, Linear(), Linear(name="some", scored=50))
    for scope in ("train", "infer"):
        some, whole = scores(out, "some", scope), scores(out, "linear", scope)
        pd.testing.assert_frame_equal(some, whole[:50].set_index(some.index))
    scored = json.loads((out / "some" / "manifest.json").read_text())["scored"]
    assert {row["images"] for row in scored.values()} == {50}


def test_a_good_attack_gives_its_image_away_and_the_mean_image_does_not(tmp_path):
    out = attack(tmp_path, Linear(), MeanImage(), noise_std=0.0)
    rates = {name: scores(out, name, "infer")["identified"].mean() for name in ("linear", "mean_image")}
    assert rates["linear"] > 0.9
    assert rates["mean_image"] < 0.05  # of 100 images one is nearest to it


def test_what_an_attack_fitted_is_kept_and_another_that_starts_from_it_says_so(tmp_path):
    files = write_run(tmp_path)
    folder = attack(tmp_path, DECODER, Linear(), files=files) / DECODER.id
    kept = folder / "weights.safetensors"
    record = read_record(folder / "attack.json", AttackRecord, "attack")
    assert record.weights_sha256 == sha256(kept)
    assert record.started_from == []
    assert [path.parent.name for path in (tmp_path / "out").glob("*/weights.safetensors")] == ["decoder"]
    header = read_header(kept)
    assert (header.net, header.smashed_shape, header.image_shape) == ("res_normN0C8", (2, 4, 4), (1, 16, 16))
    assert header.knowledge == read_record(folder / "manifest.json", Manifest, "attack").knowledge
    attack(tmp_path, DECODER, files=files, out="again")
    assert (tmp_path / "again/decoder/weights.safetensors").read_bytes() == kept.read_bytes()

    own = Decoder(name="own", net="res_normN0C8", epochs=0, weights=str(kept))
    scratch = Decoder(name="scratch", net="res_normN0C8", epochs=0)
    out = attack(tmp_path, own, scratch, files=files, out="started")
    assert scores(out, "own", "infer")["mse"].tolist() == scores(folder.parent, "decoder", "infer")["mse"].tolist()
    started = [WeightsFile(setting="weights", path=str(kept), sha256=sha256(kept))]
    record = read_record(out / "own/attack.json", AttackRecord, "attack")
    assert record.started_from == started
    assert record.knowledge.label == f"private, started from weights {sha256(kept)[:8]}"
    assert read_record(out / "own/manifest.json", Manifest, "attack").started_from == started
    assert read_header(out / "own/weights.safetensors").started_from == [sha256(kept)]
    assert not (out / "scratch/weights.safetensors").exists(), "a fit that failed leaves none"


def test_files_of_weights_are_known_by_their_contents(tmp_path):
    kept = attack(tmp_path, DECODER) / "decoder/weights.safetensors"
    cfg = Optimization(start="decoder", decoder=StartingDecoder(net="res_normN0C8", epochs=0, weights=str(kept)))
    before = files_of(cfg)
    assert [(one.setting, one.sha256) for one in before] == [("decoder.weights", sha256(kept))]
    kept.write_bytes(kept.read_bytes() + b" ")
    assert files_of(cfg) != before
    kept.unlink()
    with pytest.raises(StoreError, match=r"weights.safetensors: expected a file"):
        files_of(cfg)
