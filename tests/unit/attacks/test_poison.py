"""What an attacker does not own has no part in its fit: when all of that is replaced, every fitted byte stays."""

import numpy as np
import pytest
import torch
from torch import nn

from cem.attacks import Attack, make_attack
from cem.config import (
    ClassMean,
    Decoder,
    Flow,
    Gan,
    Linear,
    MeanImage,
    Nearest,
    Optimization,
    PriorSearch,
    ShadowModel,
    StartingDecoder,
    Vgg11,
)
from cem.defenses import make_defense
from cem.evaluation import Network, Victim
from cem.models import critic, make_split
from cem.storage.hdf5 import open_activations, open_dataset, write_file

MODEL, SHAPE = Vgg11(width=0.1), (1, 32, 32)
COUNTS = {"private": 300, "val": 20, "shadow": 200, "test": 60}
CLASSES = 3
SMALL = {"net": "res_normN0C4", "batch_size": 64}
FLOW = {"net": "unet_C4", "batch_size": 64, "epochs": 2, "samples": 2, "steps": 2, "selection_images": 8}
START = StartingDecoder(**SMALL, epochs=1)
ATTACKS = {
    cfg.id: cfg
    for cfg in (
        MeanImage(),
        ClassMean(),
        Linear(),
        Nearest(),
        Decoder(**SMALL, epochs=2, lr_sweep=(1e-3, 1e-2)),
        Gan(**SMALL, epochs=2, critic_steps=2),
        Optimization(
            steps=5, tv=(0.0, 0.1), start="decoder", decoder=START, posterior=(1.0, 100.0), selection_images=8
        ),
        Flow(**FLOW),
        PriorSearch(**FLOW, iterations=2),
        ShadowModel(encoder_steps=4, decoder=START),
    )
}


@torch.no_grad()
def write_run(folder, poisoned=(), sent=()):
    """A run's files. Splits that are poisoned hold other images, labels and activations, of other brightness.

    sent: splits whose activations stay what they were.
    """
    folder.mkdir()
    contents, clean, encoder = {}, {}, make_split(MODEL, SHAPE, CLASSES)[0].eval()
    for number, (split, count) in enumerate(COUNTS.items()):
        bad = split in poisoned
        rng = np.random.default_rng([number, bad])
        images = rng.integers(200 * bad, 256, (count, *SHAPE), dtype=np.uint8)
        contents[split] = images, rng.permutation(count) % CLASSES
        if bad and split in sent:
            images = np.random.default_rng([number, False]).integers(0, 256, (count, *SHAPE), dtype=np.uint8)
        clean[split] = encoder(torch.from_numpy(images) / 255).numpy().astype(np.float16)
    with write_file(folder / "data.h5", "dataset", attrs={"class_names": list("abc")}) as file:
        for split, (images, labels) in contents.items():
            file[f"{split}/images"], file[f"{split}/labels"] = images, labels
    with write_file(folder / "activations.h5", "activations", {"data": folder / "data.h5"}) as file:
        for split, (_, labels) in contents.items():
            file[f"{split}/smashed"], file[f"{split}/labels"] = clean[split], labels
    return folder


def fit(cfg, folder):
    """The attack as a job on these files fits it, and what the fit says of itself."""
    with open_dataset(folder / "data.h5") as data, open_activations(folder / "activations.h5") as activations:
        network = Network(MODEL, *(part.eval().requires_grad_(False) for part in make_split(MODEL, SHAPE, CLASSES)))
        victim = Victim(data, activations, make_defense(0.05, []), network, 0, torch.device("cpu"))
        attack = make_attack(cfg)
        return attack, attack.fit(victim.knowledge(cfg))


def fitted_tensors(value, name="attack"):
    """All tensors that an attack holds, in attacks inside it as well."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    if isinstance(value, nn.Module):
        parts = value.state_dict()
    elif isinstance(value, Attack):
        parts = vars(value)
    else:
        return {}
    found = [fitted_tensors(part, f"{name}.{key}") for key, part in parts.items()]
    return {key: tensor for part in found for key, tensor in part.items()}


def learned(attack, fitted):
    """Every fitted byte, and all choices and errors on the way."""
    curve = [{name: value for name, value in row.items() if name != "seconds"} for row in fitted.curve]
    tensors = {name: tensor.cpu().numpy().tobytes() for name, tensor in fitted_tensors(attack).items()}
    assert tensors
    return tensors, curve, fitted.choices, fitted.parameters


@pytest.fixture(autouse=True)
def narrow_critic(monkeypatch):
    """The published critic takes most of this file's time."""
    monkeypatch.setattr(critic, "WIDTHS", (4, 8, 16))


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("clean") / "run")


@pytest.mark.parametrize("owned", ["private", "shadow"])
@pytest.mark.parametrize("name", ATTACKS)
def test_poison_changes_no_fitted_byte(name, owned, clean, tmp_path):
    cfg = ATTACKS[name].model_copy(update={"data": owned})
    expected = learned(*fit(cfg, clean))
    sent = {"private"} if cfg.seen_images else set()  # z that it has seen are its own, the images are not
    for number, poisoned in enumerate([{"test"}, set(COUNTS) - {owned}]):
        folder = write_run(tmp_path / str(number), poisoned, sent)
        assert learned(*fit(cfg, folder)) == expected


@pytest.mark.parametrize("name", ATTACKS)
def test_poison_of_its_own_images_would_show(name, clean, tmp_path):
    folder = write_run(tmp_path / "own", {"private"})
    cfg = ATTACKS[name]
    assert learned(*fit(cfg, clean))[0] != learned(*fit(cfg, folder))[0]


@pytest.mark.parametrize("name", [name for name, cfg in ATTACKS.items() if cfg.seen_images])
def test_poison_of_the_z_that_it_has_seen_would_show(name, clean, tmp_path):
    cfg = ATTACKS[name].model_copy(update={"data": "shadow"})
    folder = write_run(tmp_path / "seen", {"private"})
    assert learned(*fit(cfg, clean))[0] != learned(*fit(cfg, folder))[0]
