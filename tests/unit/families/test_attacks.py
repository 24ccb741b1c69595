"""What holds for every registered attack, on a small victim: fair, repeatable, and never without an answer."""

import math
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cem.attacks import Attack, AttackError, Fitted, Knowledge, make_attack
from cem.attacks.weights import HasWeights, save_weights
from cem.config import ATTACKS, AttackSettings, Dropout, Settings, SyntheticDataset, Vgg11
from cem.config.attack_base import Start
from cem.config.decoder import RATES
from cem.data.sources import read_source
from cem.defenses import make_defense
from cem.evaluation import Network, Victim
from cem.jobs.interruption import Interrupted
from cem.models import critic, make_split
from cem.storage.hdf5 import open_activations, open_dataset, write_file
from cem.storage.weights import WeightsError, read_header

from ..attacks.real import MemoryStore
from .examples import cases, wrong_facts

CASES = cases(ATTACKS)
EACH = pytest.mark.parametrize("cfg", CASES)
MODEL, SHAPE, CLASSES = Vgg11(width=0.05, cut_layer=2, bottleneck="noRELU_C4S2"), (1, 32, 32), 3
SPLITS = {"private": slice(0, 70), "val": slice(70, 80), "shadow": slice(80, 110), "test": slice(110, 120)}
ENCODERS = ("weights", "query", "none")
HOSTILE = {
    "nan": lambda z: torch.full_like(z, math.nan),
    "one nan": lambda z: torch.where(torch.arange(z.numel()).view_as(z) == 5, math.nan, z),
    "inf": lambda z: torch.full_like(z, math.inf),
    "both infinities": lambda z: torch.where(z > z.median(), math.inf, -math.inf),
    "1e30": lambda z: torch.full_like(z, 1e30),
    "-1e30": lambda z: -1e30 * z,
    "all hidden": lambda z: torch.zeros_like(z),
}


@pytest.fixture(autouse=True)
def narrow_critic(monkeypatch: pytest.MonkeyPatch) -> None:
    """A critic of a hundredth of the published one's cost."""
    monkeypatch.setattr(critic, "WIDTHS", (4, 8, 16))


@pytest.fixture(scope="module")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Victim]]:
    """A run as its attackers meet it, under noise alone and under a defence that masks."""
    folder = tmp_path_factory.mktemp("run")
    source = read_source(SyntheticDataset(images=120, classes=CLASSES, channels=1))
    images = source.images[:, None]
    halves = [half.eval().requires_grad_(False) for half in make_split(MODEL, SHAPE, CLASSES)]
    with write_file(folder / "data.h5", "dataset", attrs={"class_names": list("abc")}) as file:
        for split, rows in SPLITS.items():
            file[f"{split}/images"], file[f"{split}/labels"] = images[rows], source.labels[rows]
    with write_file(folder / "activations.h5", "activations", {"data": folder / "data.h5"}) as file:
        for split, rows in SPLITS.items():
            file[f"{split}/smashed"] = halves[0](torch.from_numpy(images[rows]) / 255).numpy()
            file[f"{split}/labels"] = source.labels[rows]
    with open_dataset(folder / "data.h5") as data, open_activations(folder / "activations.h5") as activations:
        rest = (Network(MODEL, *halves), 0, torch.device("cpu"))
        yield {
            "noise": Victim(data, activations, make_defense(0.05, []), *rest),
            "mask": Victim(data, activations, make_defense(0.05, [Dropout(rate=0.3)]), *rest),
        }


@pytest.fixture(scope="module")
def fitted(victims: dict[str, Victim]) -> Any:
    """The attack of some settings on one of the victims, fitted once for all tests of this file; and its record."""
    kept: dict[tuple[str, str], tuple[Attack, Fitted]] = {}

    def of(cfg: AttackSettings, victim: str = "noise") -> tuple[Attack, Fitted]:
        key = (cfg.digest(64), victim)
        if key not in kept:
            attack = make_attack(cfg)
            kept[key] = attack, attack.fit(victims[victim].knowledge(cfg))
        return kept[key]

    return of


def sent(victim: Victim, split: str = "test") -> Tensor:
    """What the client sent, under a corruption that the attacker did not draw."""
    return victim.observe(split, 1)(slice(None), torch.Generator().manual_seed(1))


def labels(victim: Victim, cfg: AttackSettings, split: str = "test") -> Tensor | None:
    return torch.from_numpy(victim.data.labels(split)) if cfg.labels else None


def global_state() -> list[str]:
    """Of the generators that nobody owns. (Python's own is not among them: the checks of types draw from it.)"""
    return [str(torch.random.get_rng_state().tolist()), str(np.random.get_state())]  # noqa: NPY002 (the global state is what is watched)


def are_images(found: Tensor, n: int) -> bool:
    inside = bool(found.isfinite().all()) and float(found.min()) >= 0 and float(found.max()) <= 1
    return found.shape == (n, *SHAPE) and inside


@EACH
def test_facts_have_their_types(cfg: AttackSettings) -> None:
    facts: dict[str, Any] = {
        "trained": bool,
        "yardstick": bool,
        "on_ladder": bool,
        "needs_labels": bool,
        "reference_only": bool,
        "tunes_on_reference": bool,
        "least_images": int,
        "starts": tuple[Start, ...],
        "possible_encoder": tuple[str, ...],
        "id": str,
        "knowledge_label": str,
    }
    assert not wrong_facts(cfg, facts)
    assert set(cfg.possible_encoder) <= set(ENCODERS)
    assert re.fullmatch(r"[A-Za-z0-9_]+", cfg.id), "an id is part of a path"
    assert isinstance(make_attack(cfg), Attack)


@EACH
def test_an_attacker_who_knows_too_little_is_refused(cfg: AttackSettings) -> None:
    for encoder in ENCODERS:
        if encoder in cfg.possible_encoder:
            assert type(cfg)(**{**cfg.sparse(), "encoder": encoder}).encoder == encoder
        else:
            with pytest.raises(ValidationError, match=f"{cfg.member} needs encoder: .*; found {encoder}"):
                type(cfg)(**{**cfg.sparse(), "encoder": encoder})
    if cfg.needs_labels:
        with pytest.raises(ValidationError, match=f"{cfg.member} needs labels: true"):
            type(cfg)(**{**cfg.sparse(), "labels": False})


@EACH
def test_open_settings_are_closed_by_what_the_reference_says(cfg: AttackSettings, fitted) -> None:
    tuned = cfg.tuned(fitted(cfg)[1].choices)
    assert not tuned.tunes_on_reference
    assert tuned.id == cfg.id
    assert cfg.tunes_on_reference or tuned == cfg


@pytest.mark.parametrize("victim", ["noise", "mask"])
@EACH
def test_every_z_gets_an_image(cfg: AttackSettings, victim: str, victims, fitted) -> None:
    attack, record = fitted(cfg, victim)
    z = sent(victims[victim])
    before = z.clone()
    images = attack.reconstruct(z, None, labels(victims[victim], cfg))
    assert isinstance(record, Fitted)
    assert type(record.parameters) is int
    assert isinstance(record.failure, str)  # a fit as short as this may say that it is none
    assert all(row["epoch"] >= 0 for row in record.curve)
    assert are_images(images, 10)
    assert not images.requires_grad
    assert images.dtype == torch.float32
    assert torch.equal(z, before)
    assert are_images(attack.reconstruct(z[:1], None, labels(victims[victim], cfg)[:1] if cfg.labels else None), 1)


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("victim", ["noise", "mask"])
@EACH
def test_a_hostile_z_gets_an_image_or_a_clear_error(
    cfg: AttackSettings, victim: str, name: str, victims, fitted
) -> None:
    z, known = sent(victims[victim]), labels(victims[victim], cfg)
    z[1:3] = HOSTILE[name](z[1:3])
    try:
        images = fitted(cfg, victim)[0].reconstruct(z, None, known)
    except AttackError:
        return
    assert are_images(images, 10)


@pytest.mark.parametrize("name", [None, *HOSTILE])
@EACH
def test_an_image_of_its_own_that_is_asked_for_is_never_the_answer(
    cfg: AttackSettings, name: str | None, victims, fitted
) -> None:
    victim = victims["noise"]
    own, z = torch.arange(70), sent(victim, "private")
    if name is not None:
        z = HOSTILE[name](z)
    answers = fitted(cfg)[0].reconstruct(z, own, labels(victim, cfg, "private"))
    targets = torch.from_numpy(victim.data.images("private")).float() / 255
    assert not (answers == targets).flatten(1).all(1).any()


@EACH
def test_a_yardstick_does_not_look_at_z(cfg: AttackSettings, victims, fitted) -> None:
    victim = victims["noise"]
    z, known = sent(victim), labels(victim, cfg)
    one, other = (fitted(cfg)[0].reconstruct(seen, None, known) for seen in (z, z.flip(0) * 0.5))
    assert torch.equal(one, other) == cfg.yardstick


@EACH
def test_the_seeds_decide_all_that_it_draws_and_nothing_else_is_touched(cfg: AttackSettings, victims, fitted) -> None:
    victim = victims["noise"]
    z, known, knowledge = sent(victim), labels(victim, cfg), victim.knowledge(cfg)
    before, owned = global_state(), tensors(knowledge)

    def answer(settings: AttackSettings, know: Knowledge) -> Tensor:
        attack = make_attack(settings)
        attack.fit(know)
        return attack.reconstruct(z, None, known)

    again = answer(cfg, knowledge)
    assert global_state() == before
    assert all(torch.equal(*pair) for pair in zip(owned, tensors(knowledge), strict=True))
    assert torch.equal(again, fitted(cfg)[0].reconstruct(z, None, known))
    if "seed" in type(cfg).model_fields:
        assert not torch.equal(again, answer(reseeded(cfg), victim.knowledge(cfg)))
    if cfg.trained:
        assert not torch.equal(again, answer(cfg, replace(victim.knowledge(cfg), seed=1)))


def reseeded(cfg: Settings) -> Any:
    """The same with other seeds, those of its parts included."""
    changes = {
        name: value + 1 if name == "seed" else reseeded(value)
        for name in type(cfg).model_fields
        if name == "seed" or isinstance(getattr(cfg, name), Settings)
        for value in [getattr(cfg, name)]
    }
    return cfg.model_copy(update=changes)


def tensors(knowledge: Knowledge) -> list[Tensor]:
    """Copies of all that an attacker was given, and of the gradients that it left there."""
    modules = [knowledge.encoder, knowledge.server.classifier if knowledge.server else None]
    parts = [knowledge.images, *([] if knowledge.labels is None else [knowledge.labels])]
    for module in (module for module in modules if module is not None):
        assert all(parameter.grad is None for parameter in module.parameters())
        parts += module.state_dict().values()
    return [part.clone() for part in parts]


@pytest.mark.parametrize("cfg", [case for case in CASES if case.values[0].trained])
def test_one_that_is_stopped_goes_on_to_the_same_bits(cfg: AttackSettings, victims, fitted) -> None:
    victim, store = victims["noise"], MemoryStore(1)  # within the first epoch
    z, known = sent(victim), labels(victim, cfg)
    with pytest.raises(Interrupted):
        make_attack(cfg, store).fit(victim.knowledge(cfg))
    store.looks = math.inf
    attack = make_attack(cfg, store)
    record, (whole, expected) = attack.fit(victim.knowledge(cfg)), fitted(cfg)
    assert torch.equal(attack.reconstruct(z, None, known), whole.reconstruct(z, None, known))
    assert record.choices == expected.choices


WITH_WEIGHTS = pytest.mark.parametrize(
    "cfg", [case for case in CASES if isinstance(make_attack(case.values[0]), HasWeights)]
)


@pytest.fixture
def exported(fitted, tmp_path) -> Any:
    """Settings of an attack that starts from what one of some settings was fitted to, on a victim."""

    def of(cfg: AttackSettings, victim: str = "noise", **changes: Any) -> AttackSettings:
        path = tmp_path / "weights.safetensors"
        attack, record = fitted(cfg, victim)
        save_weights(path, attack.weights(), record, None, [])
        settings = {**cfg.sparse(), "weights": str(path), **changes}
        settings |= {"lr": 0.01, "lr_sweep": RATES} if "lr_sweep" in settings else {}
        return type(cfg)(**settings)

    return of


@pytest.mark.parametrize("victim", ["noise", "mask"])
@WITH_WEIGHTS
def test_a_network_from_a_file_is_used_as_it_is_without_a_fit(cfg, victim: str, victims, fitted, exported) -> None:
    z, (attack, record) = sent(victims[victim]), fitted(cfg, victim)
    settings = exported(cfg, victim, epochs=0)
    again = make_attack(settings)
    said = again.fit(victims[victim].knowledge(settings))
    assert torch.equal(again.reconstruct(z), attack.reconstruct(z))
    assert (said.failure, said.curve) == ("", [])
    assert said.held_out_mse is None  # the file's own fit may have seen what is held out here
    assert said.choices["epoch"] == 0
    # Of a prior, which knows no run, what its own fit said; of others nothing is known on this run.
    assert said.converged is (None if settings.of_z else record.converged)


@WITH_WEIGHTS
def test_a_fit_goes_on_from_the_network_of_a_file(cfg, victims, fitted, exported) -> None:
    victim, settings, store = victims["noise"], exported(cfg, seed=7), MemoryStore(1)
    z, attack = sent(victim), make_attack(settings)
    said = attack.fit(victim.knowledge(settings))
    scratch = make_attack(settings.model_copy(update={"weights": None}))
    assert said.curve
    assert said.curve[0]["val_mse"] != scratch.fit(victim.knowledge(settings)).curve[0]["val_mse"]
    with pytest.raises(Interrupted):
        make_attack(settings, store).fit(victim.knowledge(settings))
    store.looks = math.inf
    again = make_attack(settings, store)
    assert again.fit(victim.knowledge(settings)).choices == said.choices
    assert torch.equal(again.reconstruct(z), attack.reconstruct(z))


@WITH_WEIGHTS
def test_weights_of_another_network_are_refused(cfg, victims, exported) -> None:
    settings = exported(cfg)
    read_header(settings.weights)
    other = "res_normN0C2" if cfg.net.startswith("res") else "unet_C2"
    with pytest.raises(
        WeightsError, match=rf"expected weights of .* {other} .*; found those of .* {cfg.net} .*Set net"
    ):
        make_attack(settings.model_copy(update={"net": other})).fit(victims["noise"].knowledge(settings))
    if settings.of_z:
        with pytest.raises(
            WeightsError, match=r"under a defence that masks .*Take a file of a run whose defences mask"
        ):
            make_attack(settings).fit(victims["mask"].knowledge(settings))


def test_a_prior_that_is_used_as_it_is_has_converged_where_its_own_fit_had(victims, fitted, tmp_path) -> None:
    (cfg, *_) = [case.values[0] for case in CASES if case.values[0].member == "prior_search"]
    attack, record = fitted(cfg)
    for converged in (True, False, None):
        save_weights(tmp_path / "prior", attack.weights(), replace(record, converged=converged), None, [])
        settings = cfg.model_copy(update={"weights": str(tmp_path / "prior"), "epochs": 0})
        assert make_attack(settings).fit(victims["noise"].knowledge(settings)).converged is converged


def test_a_network_that_overflows_on_this_z_is_a_failure_and_not_kept(victims, fitted, tmp_path) -> None:
    (cfg, *_) = [case.values[0] for case in CASES if case.values[0].member == "decoder"]
    attack, record = fitted(cfg)
    weights = attack.weights()
    broken = {name: deepcopy(net) for name, net in weights.nets.items()}
    broken["net"].scale.zero_()  # what it divides z by
    broken["net"].centre.zero_()
    save_weights(tmp_path / "own", replace(weights, nets=broken), record, None, [])
    settings = cfg.model_copy(update={"weights": str(tmp_path / "own"), "epochs": 0})
    said = make_attack(settings).fit(victims["noise"].knowledge(settings))
    assert "answers of the network from the file are not finite" in said.failure
    assert (said.held_out_mse, said.converged) == (None, None)
