"""What holds for every registered defence: what training, attacks and run ids rely on."""

import re
from itertools import islice, permutations

import pytest
import torch

from cem.config import DEFENSES, DefenseSettings, Run, SyntheticDataset
from cem.defenses import Defense, GaussianNoise, Mechanism, Place, make_defense

from .examples import cases, one_of_each, wrong_facts

EACH = pytest.mark.parametrize("cfg", cases(DEFENSES))
ALL = one_of_each(DEFENSES)


def is_apart(cfg: DefenseSettings, left_out: str) -> bool:
    """Whether one is left out of a list: other noise than its first; pruning, or what it cannot prune."""
    return cfg.adds_noise or (bool(cfg.in_encoder) if left_out == "layers" else cfg.prunes_at(1) is not None)


TOGETHER = [  # all that can be one run's
    [noise, *(cfg for cfg in ALL if not is_apart(cfg, left_out))]
    for noise in ALL
    if noise.adds_noise
    for left_out in ("layers", "pruning")
]
ORDERS = [list(order) for listed in TOGETHER for order in islice(permutations(listed), 1, 6)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLEAN = torch.rand(16, 8, 4, 4, generator=generator(1)) * 0.8 + 0.1  # without zeros
IMAGES = torch.rand(16, 1, 8, 8, generator=generator(2))


LABELS = torch.arange(16) % 3
PLACE = Place(image=(1, 8, 8), smashed=(8, 4, 4), num_classes=3)


def made(cfg: DefenseSettings, place: Place = PLACE) -> Mechanism:
    """A defence in training, whatever it learns at its initial weights."""
    mechanism, initial = cfg.load()(cfg), generator(12)
    mechanism.build(place.smashed, initial)
    mechanism.begin_training(place, initial, torch.device("cpu"), torch.float32)
    return mechanism


def built(noise_std: float, defenses: list[DefenseSettings]) -> Defense:
    defense = make_defense(noise_std, defenses)
    defense.begin_training(PLACE, generator(12), CLEAN)
    return defense


@EACH
def test_facts_have_their_types(cfg: DefenseSettings) -> None:
    assert not wrong_facts(cfg, {"order": int, "masks": bool, "needs_training": bool, "label": str})
    assert re.fullmatch(r"[a-z0-9_.e+-]+", cfg.label), "a label is part of a run's id, and so of a path"
    assert isinstance(made(cfg), Mechanism)


@EACH
@pytest.mark.parametrize("shape", [(16, 8, 4, 4), (1, 3, 5, 2), (2, 1, 1, 1)])
def test_z_keeps_its_shape_and_what_was_given_is_not_changed(cfg: DefenseSettings, shape: tuple[int, ...]) -> None:
    clean = torch.rand(shape, generator=generator(3)) + 0.1
    place = PLACE._replace(image=(1, 8 * shape[2], 8 * shape[3]), smashed=shape[1:])
    images, before = torch.rand(len(clean), *place.image, generator=generator(4)), clean.clone()
    mechanism = made(cfg, place)
    mechanism.learn(images, clean, LABELS[: len(clean)])
    z = mechanism.act(clean, generator())
    mechanism.penalty(images, clean, LABELS[: len(clean)])
    assert (z.shape, z.dtype, z.device) == (clean.shape, clean.dtype, clean.device)
    assert z.isfinite().all()
    assert torch.equal(clean, before)


@EACH
def test_what_it_draws_comes_from_the_generator_alone(cfg: DefenseSettings) -> None:
    own, before = generator(5), torch.random.get_rng_state()
    start = own.get_state()
    z = made(cfg).act(CLEAN, own)
    made(cfg).learn(IMAGES, CLEAN, LABELS)
    made(cfg).penalty(IMAGES, CLEAN, LABELS)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(made(cfg).act(CLEAN, generator(5)), z)
    draws = not torch.equal(own.get_state(), start)
    differ = not all(torch.equal(made(cfg).act(CLEAN, generator(seed)), z) for seed in range(6, 12))
    assert differ == draws


@EACH
def test_one_that_needs_no_training_learns_nothing_and_has_no_term(cfg: DefenseSettings) -> None:
    mechanism = made(cfg)
    learns = mechanism.learned is not None or bool(cfg.in_encoder)
    learns |= cfg.prunes_at(10) is not None
    assert cfg.needs_training == (learns or mechanism.penalty(IMAGES, CLEAN, LABELS) is not None)


@EACH
def test_masks_says_whether_it_makes_zeros(cfg: DefenseSettings) -> None:
    defense, zeros = made(cfg), False
    for seed in range(20):
        zeros |= bool((defense.act(CLEAN, generator(seed)) == 0).any())
    assert zeros == cfg.masks
    assert make_defense(0.1, [cfg]).masks == cfg.masks


@EACH
def test_training_reaches_the_encoder_through_it(cfg: DefenseSettings) -> None:
    clean = CLEAN.clone().requires_grad_()
    z = made(cfg).act(clean, generator())
    (gradient,) = torch.autograd.grad((z * torch.rand(z.shape, generator=generator(7))).sum(), clean)
    assert gradient.isfinite().all()
    assert gradient.any()


@EACH
def test_a_penalty_is_a_finite_number_with_a_gradient_or_none(cfg: DefenseSettings) -> None:
    for clean in (CLEAN, CLEAN[:2], torch.ones_like(CLEAN)):  # the last: an encoder that sends one value
        moving = clean.clone().requires_grad_()
        penalty = made(cfg).penalty(IMAGES[: len(clean)], moving, LABELS[: len(clean)])
        if penalty is None:
            continue
        (gradient,) = torch.autograd.grad(penalty, moving)
        assert penalty.shape == ()
        assert penalty.isfinite()
        assert gradient.isfinite().all()
        if cfg.member == "nopeek" and len(clean) == 2:  # one distance: whatever it is, its correlation is 1
            assert float(penalty.detach()) == pytest.approx(cfg.weight)
            assert not gradient.any()
        else:
            assert gradient.any() or (clean == 1).all()


@EACH
def test_the_noise_comes_first(cfg: DefenseSettings) -> None:
    one, other = generator(8), generator(8)
    expected = made(cfg).act(GaussianNoise(0.1).send(CLEAN, one), one)
    assert torch.equal(built(0.1, [cfg]).corrupt(CLEAN, other), expected)


@pytest.mark.parametrize("order", ORDERS, ids=lambda order: "-".join(cfg.member for cfg in order))
def test_two_orders_of_one_list_are_one_run(order: list[DefenseSettings]) -> None:
    listed = sorted(order, key=ALL.index)
    one, other = (
        Run(dataset=SyntheticDataset(), noise_std=0.0, defenses=tuple(defenses)) for defenses in (listed, order)
    )
    assert other.id == one.id
    assert other.base == one.base
    one, other = (built(0.1, defenses) for defenses in (listed, order))
    assert torch.equal(other.corrupt(CLEAN, generator(9)), one.corrupt(CLEAN, generator(9)))
    assert torch.equal(other.penalty(IMAGES, CLEAN, LABELS), one.penalty(IMAGES, CLEAN, LABELS))


def test_defences_act_in_ascending_order() -> None:
    order = [cfg.order for cfg in make_defense(0.0, reversed(one_of_each(DEFENSES))).settings]
    assert order == sorted(order)
