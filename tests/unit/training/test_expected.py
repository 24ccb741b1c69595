"""What the measuring stage says of an encoder without an attacker, and where it says "not applicable"."""

import json

import pytest
import torch

from cem.config import Dropout, LocalDp, MixtureFit, NoPeek, TopK
from cem.jobs.process import make_generator
from cem.models import make_split
from cem.storage.files import StoreError
from cem.storage.hdf5 import Reader, open_dataset
from cem.storage.tensors import save_checkpoint
from cem.training import extract_activations, measure_mixture

FIT = MixtureFit(components=1, fit="em")


@pytest.fixture
def measured(make_run, data, tmp_path):
    """Measures an untrained run, and gives the attributes with the reasons read."""

    def measure(*, constant=False, observations=(), other_model=False, cut_layer=4, **settings) -> dict:
        run = make_run(**settings)
        run = run.model_copy(update={"model": run.model.model_copy(update={"cut_layer": cut_layer})})
        model, activations, out = (tmp_path / name for name in ("model.safetensors", "activations.h5", "mixture.h5"))
        parts = make_split(run.model, (1, 32, 32), 4, make_generator(0, "model", "cpu"))
        for part in parts:
            if constant:
                torch.nn.init.zeros_(list(part.parameters())[-2])  # weight of the last layer
        names = ("encoder", "classifier")
        tensors = {f"{n}.{k}": v for n, p in zip(names, parts, strict=True) for k, v in p.state_dict().items()}
        save_checkpoint(model, "model", tensors, {})
        extract_activations(run, data, model, "model", "float32", activations)
        if other_model:
            save_checkpoint(model, "model", {k: v + 1 for k, v in tensors.items()}, {})
        measure_mixture(run, FIT, activations, out, observations, data=data, model=model)
        with Reader(out, kind="mixture") as reader:
            return reader.attrs | {"reasons": json.loads(reader.attrs["not_applicable"])}

    return measure


def mean_image_error(data) -> float:
    with open_dataset(data) as file:
        mean = file.images("private").astype(float).mean(0) / 255
        return float(((file.images("test") / 255 - mean) ** 2).mean())


def test_a_noisy_run(measured, data) -> None:
    found = measured(observations=(4,), noise_std=0.05)
    assert 0 < found["lmmse_low"] < found["lmmse"] < mean_image_error(data)
    assert found["lmmse_seen4"] < found["lmmse"]
    assert 0 < found["dfil_sem"] < 0.05 * found["dfil"]
    assert found["dfil_seen4"] == pytest.approx(4 * found["dfil"])
    assert found["i_mmse"] == pytest.approx(1, abs=max(0.03, 4 * found["i_mmse_sem"]))
    assert set(found["reasons"]) == {"dfil_floor"}
    assert found["reasons"]["dfil_floor"].startswith("z has 256 numbers, an image 1024")
    assert "dfil_floor" not in found


def test_z_as_large_as_the_image_has_an_unbiased_floor(measured) -> None:
    found = measured(noise_std=0.05, cut_layer=2)
    assert found["dfil_floor"] == pytest.approx(1 / found["dfil"])
    assert "dfil_floor" not in found["reasons"]


def test_without_noise(measured, data) -> None:
    found = measured(noise_std=0.0)
    assert 0 < found["lmmse"] < mean_image_error(data)
    assert set(found["reasons"]) == {"dfil", "i_mmse"}
    assert not {"dfil", "dfil_floor", "i_mmse"} & set(found)


@pytest.mark.parametrize("defense", [Dropout(), TopK()])
def test_a_defence_that_acts_on_z(measured, defense) -> None:
    found = measured(noise_std=0.05, defenses=(defense,))
    assert found["reasons"] == dict.fromkeys(("lmmse", "dfil"), "a defence acts on z beside the noise")
    assert not {"lmmse", "lmmse_low", "dfil"} & set(found)
    assert found["i_mmse"] > 0


@pytest.mark.parametrize("clip", [None, 0.5])
def test_laplace_noise_states_less(measured, clip) -> None:
    found = measured(
        observations=(4,), noise_std=0.0, defenses=(LocalDp(mechanism="laplace", epsilon=40.0, clip=clip),)
    )
    why = "the noise is Laplace's; this is computed for Gaussian noise"
    assert found["reasons"] == {
        "leakage_seen4": "the mean of 4 draws of Laplace's noise has no simple density",
        **dict.fromkeys(("i_mmse", "dfil", "bound_nats"), why),
    }
    assert 0 < found["leakage_lower_nats"] <= found["leakage_nats"] + 3 * found["leakage_nats_sem"]
    assert found["lmmse_seen4"] < found["lmmse"]
    assert not {"dfil", "i_mmse", "bound_nats", "leakage_nats_seen4"} & set(found)


def test_gaussian_noise_of_a_defence_is_measured_as_noise(measured) -> None:
    """Without a clip it is plain noise, whose σ is given in another way."""
    cfg = LocalDp(epsilon=80.0)
    plain, private = measured(noise_std=cfg.scale), measured(noise_std=0.0, defenses=(cfg,))
    for name in ("leakage_nats", "leakage_lower_nats", "lmmse", "dfil", "i_mmse"):
        assert private[name] == plain[name]


def test_a_defence_of_the_objective_alone_changes_nothing(measured) -> None:
    plain, penalised = (measured(noise_std=0.05, defenses=defenses) for defenses in ((), (NoPeek(),)))
    assert plain["lmmse"] == penalised["lmmse"]
    assert plain["dfil"] == pytest.approx(penalised["dfil"], rel=0.01)


def test_a_constant_encoder(measured, data) -> None:
    found = measured(noise_std=0.05, constant=True)
    assert found["lmmse"] == pytest.approx(mean_image_error(data), rel=1e-4)
    assert found["dfil"] == 0
    assert set(found["reasons"]) == {"dfil_floor", "i_mmse"}


def test_a_large_z_has_no_linear_error(measured, monkeypatch) -> None:
    monkeypatch.setattr("cem.training.expected.MOST_DIMENSIONS", 255)
    found = measured(noise_std=0.05)
    assert "lmmse" not in found
    assert found["reasons"]["lmmse"] == "ẑ has 256 numbers, more than the 255 that it is computed for"
    assert found["dfil"] > 0


def test_twice_the_same(measured) -> None:
    first, again = measured(noise_std=0.05), measured(noise_std=0.05)
    names = ("lmmse", "lmmse_low", "dfil", "dfil_sem", "i_mmse", "i_mmse_sem", "conditional_nats")
    assert [first[name] for name in names] == [again[name] for name in names]


def test_the_conditional_bound_falls_with_noise_to_that_of_no_information(measured, data) -> None:
    """Which is what the mean image leaves: of a constant encoder, and of z that is masked to zero."""
    clean, noisy, blind = (measured(**case) for case in ({"noise_std": 0.0}, {"noise_std": 0.5}, {"constant": True}))
    hidden = measured(noise_std=0.05, defenses=(TopK(fraction=0.99),))
    found = [one["conditional_nats"] for one in (clean, noisy, blind)]
    assert found[0] > found[1] > found[2] - 1
    assert found[0] > hidden["conditional_nats"] > found[2] - 1


def test_another_model_is_refused(measured) -> None:
    with pytest.raises(StoreError, match="made from another model"):
        measured(noise_std=0.05, other_model=True)
