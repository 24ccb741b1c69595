"""What an attacker does not own has no part in its fit: when all of that is replaced, every fitted byte stays."""

import numpy as np
import pytest
import torch
from torch import nn

from cem import evaluation
from cem.attacks import Attack, Fitted
from cem.config import ClassMean, Decoder, Linear, MeanImage, Nearest
from cem.defenses import make_defense
from cem.store import write_file

COUNTS = {"private": 300, "val": 20, "shadow": 200, "test": 60}
CLASSES = 3
NET = Decoder(net="res_normN0C4", epochs=2, batch_size=64, lr=1e-3)
ATTACKS = {cfg.id: cfg for cfg in (MeanImage(), ClassMean(), Linear(), Nearest(), NET)}


class Ended(Exception):
    """Carries a fitted attack out of a job, before anything is scored."""

    def __init__(self, attack: Attack, fitted: Fitted) -> None:
        self.attack, self.fitted = attack, fitted


def write_run(folder, poisoned=()):
    """A run's files. Splits that are poisoned hold other images, labels and activations, of other brightness."""
    folder.mkdir()
    contents = {}
    for number, (split, count) in enumerate(COUNTS.items()):
        bad = split in poisoned
        rng = np.random.default_rng([number, bad])
        images = rng.integers(200 * bad, 256, (count, 1, 16, 16), dtype=np.uint8)
        contents[split] = images, rng.permutation(count) % CLASSES
    with write_file(folder / "data.h5", "dataset", attrs={"class_names": list("abc")}) as file:
        for split, (images, labels) in contents.items():
            file[f"{split}/images"], file[f"{split}/labels"] = images, labels
    with write_file(folder / "activations.h5", "activations", {"data": folder / "data.h5"}) as file:
        for split, (images, labels) in contents.items():
            pooled = images.reshape(-1, 1, 4, 4, 4, 4).mean((3, 5)) / 255
            file[f"{split}/smashed"] = np.concatenate([pooled, 1 - pooled], axis=1).astype(np.float16)
            file[f"{split}/labels"] = labels
    return folder


def fit(cfg, folder, monkeypatch):
    """The attack as a job on these files fits it, and what the fit says of itself."""
    make = evaluation.make_attack

    def make_and_end(*args, **settings):
        attack = make(*args, **settings)
        learn = attack.fit

        def learn_and_end(knowledge):
            raise Ended(attack, learn(knowledge))

        attack.fit = learn_and_end
        return attack

    monkeypatch.setattr(evaluation, "make_attack", make_and_end)
    files, corrupt = (folder / "activations.h5", folder / "data.h5"), make_defense(0.05, []).corrupt
    with pytest.raises(Ended) as ended:
        evaluation.run_attacks([cfg], *files, corrupt, folder / "out", num_images=5, seed=0)
    monkeypatch.undo()
    return ended.value.attack, ended.value.fitted


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


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("clean") / "run")


@pytest.mark.parametrize("owned", ["private", "shadow"])
@pytest.mark.parametrize("name", ATTACKS)
def test_poison_changes_no_fitted_byte(name, owned, clean, tmp_path, monkeypatch):
    cfg = ATTACKS[name].model_copy(update={"data": owned})
    expected = learned(*fit(cfg, clean, monkeypatch))
    for number, poisoned in enumerate([{"test"}, set(COUNTS) - {owned}]):
        folder = write_run(tmp_path / str(number), poisoned)
        assert learned(*fit(cfg, folder, monkeypatch)) == expected


@pytest.mark.parametrize("name", ATTACKS)
def test_poison_of_its_own_images_would_show(name, clean, tmp_path, monkeypatch):
    folder = write_run(tmp_path / "own", {"private"})
    cfg = ATTACKS[name]
    assert learned(*fit(cfg, clean, monkeypatch))[0] != learned(*fit(cfg, folder, monkeypatch))[0]
