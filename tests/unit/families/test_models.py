"""What holds for every registered architecture: both halves fit at every cut, and the seed decides the weights."""

import re
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from cem.config import MODELS, SURROGATES, ModelSettings, SurrogateSettings
from cem.models import make_split, seed_dropout, smashed_shape, smashed_shape_of
from cem.surrogates import make_surrogate

from .examples import cases, one_of_each, wrong_facts

CASES = [case for case in cases(MODELS) if case.values[0].has_network]
FIRST = [cfg for cfg in one_of_each(MODELS) if cfg.has_network]
EACH = pytest.mark.parametrize("cfg", CASES)
KNOWN = pytest.mark.parametrize("cfg", [case for case in CASES if not case.values[0].needs_network])
CUTS = [
    pytest.param(case.values[0], cut, id=f"{case.id}, cut {cut}")
    for case in CASES
    for cut in range(1, case.values[0].stages + 1)
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def changed(cfg: ModelSettings, **settings: object) -> ModelSettings:
    """The same with other settings, checked as a study's are."""
    return type(cfg)(**{**cfg.model_dump(), **settings})


def fits(cfg: ModelSettings, side: int) -> bool:
    try:
        cfg.check_side(side)
    except ValueError:
        return False
    return True


@EACH
def test_facts_have_their_types(cfg: ModelSettings) -> None:
    assert not wrong_facts(cfg, {"stages": int, "needs_network": bool, "has_network": bool, "label": str})
    assert cfg.stages >= 1
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", cfg.label), "a label is part of a path"
    assert cfg.needs_network or type(cfg.side_at_cut(64)) is int


@pytest.mark.parametrize(("cfg", "cut"), CUTS)
def test_the_halves_fit_at_every_cut(cfg: ModelSettings, cut: int) -> None:
    cfg = changed(cfg, cut_layer=cut)
    side = next(side for side in (32, 64, 128, 256) if fits(cfg, side))
    encoder, classifier = make_split(cfg, (3, side, side), 7)
    images = torch.rand(2, 3, side, side, generator=generator())
    with torch.no_grad():
        z = encoder.eval()(images)
        logits = classifier.eval()(z)
    assert z.shape[1:] == smashed_shape(encoder, (3, side, side))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("side", [32, 48, 64])
@pytest.mark.parametrize(
    ("cfg", "cut"),
    [case for case in CUTS if case.values[0] in FIRST and not case.values[0].needs_network],
)
def test_the_side_at_the_cut_is_that_of_the_features(cfg: ModelSettings, cut: int, side: int) -> None:
    cfg = changed(cfg, cut_layer=cut, bottleneck=None)
    encoder, _ = make_split(cfg, (3, side, side), 5)
    assert smashed_shape(encoder, (3, side, side))[1:] == (cfg.side_at_cut(side),) * 2


@EACH
def test_the_seed_decides_the_weights_and_torchs_global_generator_is_left_alone(cfg: ModelSettings) -> None:
    before = torch.random.get_rng_state()
    one, other, third = (make_split(cfg, (3, 32, 32), 10, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    for a, b, c in zip(one, other, third, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert all(value.isfinite().all() for value in a.state_dict().values())
        assert not all(torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))


@EACH
def test_training_reaches_every_weight_of_both_halves(cfg: ModelSettings) -> None:
    encoder, classifier = make_split(cfg, (3, 32, 32), 10)
    seed_dropout(encoder, generator())
    images = torch.rand(8, 3, 32, 32, generator=generator())
    z = encoder.train()(images)
    classifier.eval()(z).square().sum().backward()
    untouched = [
        name
        for half in (encoder, classifier)
        for name, parameter in half.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert not untouched


@KNOWN
def test_images_that_do_not_fit_are_refused(cfg: ModelSettings) -> None:
    with pytest.raises(ValueError, match="square"):
        make_split(cfg, (3, 32, 48), 10)
    stride = cfg.side_at_cut(32) + 1  # which divides no smaller number but 0
    bad = changed(cfg, bottleneck=f"C8S{stride}")
    with pytest.raises(ValueError, match=rf"stride {stride} must divide the {stride - 1}×{stride - 1}"):
        make_split(bad, (3, 32, 32), 10)


@EACH
def test_a_cut_outside_is_refused_with_those_there_are(cfg: ModelSettings) -> None:
    with pytest.raises(ValidationError, match=f"outside {cfg.arch}: choose 1 to {cfg.stages}"):
        changed(cfg, cut_layer=cfg.stages + 1)


@pytest.mark.parametrize(("cfg", "cut"), [case for case in CUTS if case.values[0] in FIRST])
def test_weights_survive_a_round_trip_through_a_file(cfg: ModelSettings, cut: int, tmp_path: Path) -> None:
    cfg = changed(cfg, cut_layer=cut)
    side = next(side for side in (32, 64, 128, 256) if fits(cfg, side))
    halves, others = (make_split(cfg, (3, side, side), 10, generator(seed)) for seed in (1, 2))
    for half, other in zip(halves, others, strict=True):
        save_file(half.state_dict(), tmp_path / "half")
        other.load_state_dict(load_file(tmp_path / "half"))
        assert all(torch.equal(x, y) for x, y in zip(half.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("surrogate", one_of_each(SURROGATES))
@pytest.mark.parametrize("cfg", FIRST)
@pytest.mark.parametrize("last", [False, True], ids=["map", "last cut"])
def test_every_surrogate_takes_two_steps(cfg: ModelSettings, surrogate: SurrogateSettings, last: bool) -> None:
    """On a map, and after the last stage, where z may be a vector."""
    cfg = changed(cfg, cut_layer=cfg.stages if last else min(2, cfg.stages), bottleneck=None)
    encoder, _ = make_split(cfg, (3, 32, 32), 3)
    seed_dropout(encoder, generator())
    shape = smashed_shape(encoder, (3, 32, 32))
    made = make_surrogate(surrogate, smashed_shape=shape, num_classes=3, noise_std=0.1)
    labels = torch.arange(12) % 3
    made.refit(torch.rand(24, *shape, generator=generator(1)), torch.arange(24) % 3)
    optimizer = torch.optim.SGD(encoder.parameters(), lr=1e-3)
    for step in range(2):
        images = torch.rand(12, 3, 32, 32, generator=generator(step))
        seen = {"images": images} if made.uses_images else {}
        terms = made(encoder.train()(images), labels, generator(), **seen)
        assert terms.loss.isfinite()
        assert terms.loss.requires_grad == surrogate.adds_term
        if surrogate.adds_term:
            optimizer.zero_grad()
            terms.loss.backward()
            optimizer.step()
    assert all(parameter.isfinite().all() for parameter in encoder.parameters())


@pytest.mark.parametrize("side", [32, 48, 50])
@KNOWN
def test_the_side_of_z_is_known_from_the_settings(cfg: ModelSettings, side: int) -> None:
    if fits(cfg, side):
        encoder, _ = make_split(cfg, (1, side, side), 5)
        assert smashed_shape(encoder, (1, side, side))[1:] == (cfg.side_of_z(side),) * 2
        assert smashed_shape_of(cfg, (1, side, side)) == smashed_shape(encoder, (1, side, side))
