"""What holds for every registered architecture: both halves fit at every cut, and the seed decides the weights."""

import pytest
import torch
from pydantic import ValidationError

from cem.config import MODELS, ModelSettings
from cem.models import make_split, smashed_shape, smashed_shape_of

from .examples import cases, one_of_each, wrong_facts

EACH = pytest.mark.parametrize("cfg", cases(MODELS))
CUTS = [
    pytest.param(case.values[0], cut, id=f"{case.id}, cut {cut}")
    for case in cases(MODELS)
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
    return cfg.side_at_cut(side) > 0


@EACH
def test_facts_have_their_types(cfg: ModelSettings) -> None:
    assert not wrong_facts(cfg, {"stages": int})
    assert cfg.stages >= 1
    assert type(cfg.side_at_cut(64)) is int


@pytest.mark.parametrize(("cfg", "cut"), CUTS)
def test_the_halves_fit_at_every_cut(cfg: ModelSettings, cut: int) -> None:
    cfg = changed(cfg, cut_layer=cut)
    side = next(side for side in (32, 64, 128, 256) if fits(cfg, side))
    encoder, classifier = make_split(cfg, (1, side, side), 7)
    images = torch.rand(2, 1, side, side, generator=generator())
    with torch.no_grad():
        z = encoder.eval()(images)
        logits = classifier.eval()(z)
    assert z.shape[1:] == smashed_shape(encoder, (1, side, side))
    assert logits.shape == (2, 7)
    assert logits.isfinite().all()


@pytest.mark.parametrize("side", [32, 48, 64])
@pytest.mark.parametrize(("cfg", "cut"), [case for case in CUTS if case.values[0] in one_of_each(MODELS)])
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
        assert not torch.equal(next(a.parameters()), next(c.parameters()))


@EACH
def test_training_reaches_every_weight_of_both_halves(cfg: ModelSettings) -> None:
    encoder, classifier = make_split(cfg, (3, 32, 32), 10)
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


@EACH
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


@pytest.mark.parametrize("side", [32, 48, 50])
@EACH
def test_the_side_of_z_is_known_from_the_settings(cfg: ModelSettings, side: int) -> None:
    if fits(cfg, side):
        encoder, _ = make_split(cfg, (1, side, side), 5)
        assert smashed_shape(encoder, (1, side, side))[1:] == (cfg.side_of_z(side),) * 2
        assert smashed_shape_of(cfg, (1, side, side)) == smashed_shape(encoder, (1, side, side))
