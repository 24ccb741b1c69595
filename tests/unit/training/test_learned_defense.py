"""What a defence learns reaches every stage by the files, up to the z that is attacked."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from cem.config import Linear, MixtureFit, Run, ShapedNoise, SparseCoding, Vib
from cem.evaluation import Victim, attack_run, run_attacks
from cem.models import make_split
from cem.storage.hdf5 import Reader, open_activations
from cem.storage.tensors import load_checkpoint, subset
from cem.training import extract_activations, measure_mixture, train, warm_up

from .conftest import TRAINING

FIT = MixtureFit(components=1, fit="em")


@dataclass
class Done:
    """What the stages of a run left, and the noise that its attackers met: z − ẑ of test images, and these ẑ."""

    encoder: dict[str, torch.Tensor]
    learned: dict[str, torch.Tensor]
    activations: Path
    leakage: dict
    noise: torch.Tensor
    clean: torch.Tensor


@pytest.fixture
def go_through(make_run, data, tmp_path, monkeypatch):
    """Takes a run of these defences through all stages."""

    def stages(*defenses, **settings) -> Done:
        training = TRAINING.model_copy(update={"epochs": 3, "warmup_epochs": 1})
        run: Run = make_run(**{"noise_std": 0.0} | settings, defenses=defenses, training=training)
        model, activations, mixture = tmp_path / "model.safetensors", tmp_path / "a.h5", tmp_path / "mixture.h5"
        warm_up(run, data, tmp_path / "warm.safetensors", tmp_path / "warm.csv", tmp_path)
        train(run, data, tmp_path / "warm.safetensors", tmp_path / "warm.csv", None, tmp_path, tmp_path)
        extract_activations(run, data, model, "model", "auto", activations)
        measure_mixture(run, FIT, activations, mixture, (4,), data=data, model=model)
        met: list[tuple[torch.Tensor, torch.Tensor]] = []

        def watched(attacks, victim: Victim, *args, **kwargs) -> None:
            z = victim.observe("test", 1)(slice(None), torch.Generator().manual_seed(0))
            clean = victim.activations.read("test", slice(None), lambda part: torch.from_numpy(part).float())
            met.append((z - clean, clean))
            run_attacks(attacks, victim, *args, **kwargs)

        monkeypatch.setattr("cem.evaluation.run.run_attacks", watched)
        files = {"activations": activations, "data": data, "model": model}
        attack_run(run, [Linear()], folder=tmp_path / "attacks", num_images=2, results=tmp_path, **files)
        encoder, learned = (subset(load_checkpoint(model, "model")[0], part) for part in ("encoder", "defense"))
        with open_activations(activations) as file:
            assert file.learned.keys() == learned.keys()
            assert all(np.array_equal(file.learned[name], tensor.numpy()) for name, tensor in learned.items())
        with Reader(mixture, kind="mixture") as reader:
            found = reader.attrs | {"reasons": json.loads(reader.attrs["not_applicable"])}
        return Done(encoder, learned, activations, found, *met[0])

    return stages


@pytest.mark.parametrize("shape", ["fisher", "learned"])
def test_shaped_noise(go_through, shape) -> None:
    done = go_through(ShapedNoise(std=0.5, shape=shape))
    (values,) = done.learned.values()
    assert float(values.std()) > 0
    sizes = done.noise.var(0) / 0.25
    assert float(sizes.mean()) == pytest.approx(1, rel=0.05)
    if shape == "fisher":  # the most and the least of what the training has come to
        order = values.flatten().argsort()
        assert float(sizes.flatten()[order[:20]].mean()) > 2 * float(sizes.flatten()[order[-20:]].mean())
    found = done.leakage
    assert 0 < found["leakage_lower_nats"] <= found["leakage_nats"]
    assert found["leakage_nats_seen4"] > found["leakage_nats"]
    assert {"lmmse", "dfil", "i_mmse", "bound_nats"} <= found["reasons"].keys()
    assert "another size in each number" in found["reasons"]["dfil"]
    with open_activations(done.activations) as file:
        assert file.attrs["smashed_dtype"] == "float32"
        assert "not of one size" in file.attrs["smashed_dtype_why"]


def test_vib(go_through) -> None:
    done = go_through(Vib(initial_std=0.2, weight=1e-3))
    weight, bias = done.learned["vib.weight"][:, :, 0, 0], done.learned["vib.bias"]
    log_sizes = torch.einsum("oc,nchw->nohw", weight, done.clean) + bias.view(-1, 1, 1)
    assert float((log_sizes - math.log(0.2)).abs().mean()) > 0.1, "it has learned another size"
    parts = (done.noise / log_sizes.exp()).flatten().numpy()
    assert stats.kstest(parts[::20], "norm").pvalue > 0.01
    found = done.leakage
    assert 0 < found["leakage_lower_nats"] <= found["leakage_nats"]
    assert found["noise_std"] == pytest.approx(float(done.learned["vib.mean_square"]) ** 0.5)
    assert "spread" in str(found["reasons"]) or "several looks" in str(found["reasons"])
    assert not any("seen4" in name for name in found if name.startswith("leakage"))
    assert "depends on ẑ" in found["reasons"]["dfil"]
    assert {"lmmse", "dfil", "i_mmse", "bound_nats"} <= found["reasons"].keys()


def test_sparse_coding_is_in_the_encoder(go_through, make_run, data) -> None:
    cfg = SparseCoding(expansion=2)
    done = go_through(cfg, noise_std=0.05)
    assert not done.learned
    (dictionary,) = (tensor for name, tensor in done.encoder.items() if name.endswith("dictionary"))
    assert dictionary.shape == (8, 4, 1, 1)
    assert not torch.allclose(dictionary.flatten(1).T @ dictionary.flatten(1), torch.eye(4), atol=1e-3), (
        "it has learned"
    )
    assert {"lmmse", "dfil", "i_mmse"} <= done.leakage.keys(), "what leaves is ẑ + noise, as without it"
    run = make_run(defenses=(cfg,))
    with pytest.raises(RuntimeError, match="dictionary"):
        make_split(run.undefended(0).model, (1, 32, 32), 4)[0].load_state_dict(done.encoder)
