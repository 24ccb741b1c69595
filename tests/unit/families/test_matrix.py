"""What holds of members of two families together: a defence with a surrogate, an attack on an architecture."""

import math
from collections.abc import Iterator

import pytest
import torch

from cem.attacks import make_attack
from cem.config import (
    ATTACKS,
    DEFENSES,
    MODELS,
    SURROGATES,
    AttackSettings,
    DefenseSettings,
    ModelSettings,
    Run,
    SurrogateSettings,
    SyntheticDataset,
    Training,
    Vgg11,
)
from cem.data.sources import read_source
from cem.defenses import make_defense
from cem.evaluation import Network, Victim
from cem.models import critic, make_split, smashed_shape
from cem.storage.hdf5 import open_activations, open_dataset, write_file
from cem.training.protocol import train_batch
from cem.training.schedule import surrogate_computed

from ..training.small import make_batch, make_state
from .examples import CONDITIONAL, one_of_each, reader

SHAPE, CLASSES = (3, 32, 32), 3  # of the attacked networks'; those that are trained have small.py's
SPLITS = {"private": slice(0, 60), "val": slice(60, 66), "shadow": slice(66, 90), "test": slice(90, 96)}


@pytest.mark.parametrize("protocol", ["joint", "split"])
@pytest.mark.parametrize("surrogate", [*one_of_each(SURROGATES), reader(SURROGATES).validate_python(CONDITIONAL)])
@pytest.mark.parametrize("defense", one_of_each(DEFENSES))
def test_every_defence_trains_with_every_surrogate(
    defense: DefenseSettings, surrogate: SurrogateSettings, protocol: str
) -> None:
    own = surrogate.own_warmup_epochs
    run = Run(
        model=Vgg11(width=0.05, bottleneck="noRELU_C4S1"),
        dataset=SyntheticDataset(images=100, classes=CLASSES, channels=1),
        noise_std=0.0 if defense.adds_noise else 0.1,
        defenses=(defense,),
        surrogate=surrogate,
        training=Training(epochs=4 + own, warmup_epochs=0, protocol=protocol),
    )
    state = make_state(run)
    client, server = state.client, state.server
    before = [parameter.clone() for half in (client.encoder, server.classifier) for parameter in half.parameters()]
    if surrogate.measures_threshold:
        smashed = torch.rand(
            60, *smashed_shape(client.encoder, (1, 32, 32)), generator=torch.Generator().manual_seed(1)
        )
        client.surrogate.measure_threshold(smashed, torch.arange(60) % CLASSES)
    for number in range(2):
        used = surrogate_computed(surrogate, run.training, own)
        step = train_batch(client, server, make_batch(number), 0.1 if surrogate.adds_term else 0.0, used)
        assert step.failure is None
        assert not {name: value for name, value in step.readings.items() if not math.isfinite(value)}
    after = [parameter for half in (client.encoder, server.classifier) for parameter in half.parameters()]
    assert all(value.isfinite().all() for value in after)
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True) if a.dim() > 1)


@pytest.fixture(scope="module")
def victim_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """An untrained network of some settings as its attackers meet it."""
    source = read_source(SyntheticDataset(images=96, classes=CLASSES))
    images, kept = source.images.transpose(0, 3, 1, 2), {}

    def of(model: ModelSettings) -> Victim:
        if model in kept:
            return kept[model]
        folder = tmp_path_factory.mktemp("run")
        halves = make_split(model, SHAPE, CLASSES, torch.Generator().manual_seed(0))
        for half in halves:
            half.eval().requires_grad_(False)
        with write_file(folder / "data.h5", "dataset", attrs={"class_names": list("abc")}) as file:
            for split, rows in SPLITS.items():
                file[f"{split}/images"], file[f"{split}/labels"] = images[rows], source.labels[rows]
        with write_file(folder / "activations.h5", "activations", {"data": folder / "data.h5"}) as file:
            for split, rows in SPLITS.items():
                file[f"{split}/smashed"] = halves[0](torch.from_numpy(images[rows]) / 255).numpy()
                file[f"{split}/labels"] = source.labels[rows]
        files = open_dataset(folder / "data.h5").__enter__(), open_activations(folder / "activations.h5").__enter__()
        kept[model] = Victim(*files, make_defense(0.05, []), Network(model, *halves), 0, torch.device("cpu"))
        return kept[model]

    yield of
    for victim in kept.values():
        victim.data.__exit__(None, None, None)
        victim.activations.__exit__(None, None, None)


def cut_at(cfg: ModelSettings, cut: int, bottleneck: str | None) -> ModelSettings:
    return type(cfg)(**{**cfg.model_dump(), "cut_layer": cut, "bottleneck": bottleneck})


ALIKE = ("vgg13", "vgg16", "resnet32")  # as vgg11 and resnet20, in what an attack sees
PLACES = [  # a map of few channels, and what the last stage gives as it is: a small map, tokens, or a vector
    pytest.param(cut_at(cfg, *place), id=f"{cfg.member}, {name}")
    for cfg in one_of_each(MODELS)
    if cfg.has_network and cfg.member not in ALIKE
    for name, place in {
        "map": (8 if cfg.member == "mobilenet_v2" else min(4, cfg.stages), "noRELU_C4S1"),
        "last cut": (cfg.stages, None),
    }.items()
    if name == "map" or cfg.member in ("vgg11", "vit_small", "torchvision")
]


def refusal(attack: AttackSettings, model: ModelSettings, z: int) -> str:
    """Why an attack cannot be run on z of this side; empty where it can."""
    try:
        attack.check_z(model, z, SHAPE[1])
    except ValueError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("model", PLACES)
@pytest.mark.parametrize("attack", one_of_each(ATTACKS))
def test_every_attack_answers_on_every_architecture_or_is_refused_before(
    attack: AttackSettings, model: ModelSettings, victim_of, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(critic, "WIDTHS", (4, 8, 16))
    victim = victim_of(model)
    if why := refusal(attack, model, victim.activations.smashed_shape[1]):
        assert "leave the attack out" in why
        return
    made = make_attack(attack)
    made.fit(victim.knowledge(attack))  # how well, is not asked
    z = victim.observe("test", 1)(slice(None), torch.Generator().manual_seed(1))
    labels = torch.from_numpy(victim.data.labels("test")) if attack.labels else None
    found = made.reconstruct(z, None, labels)
    assert found.shape == (len(z), *SHAPE)
    assert found.isfinite().all()
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
