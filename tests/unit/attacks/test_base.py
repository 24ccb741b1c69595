import ast
from pathlib import Path

import pytest
import torch

import cem.attacks
from cem.attacks import AttackError, make_attack
from cem.attacks.base import CHUNK_PIXELS, chunks, hold_out, make_generator
from cem.attacks.decoder import DecoderAttack
from cem.attacks.gan import GanAttack
from cem.attacks.linear import LinearAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.attacks.nearest import NearestAttack
from cem.config import Decoder, Gan, Linear, MeanImage, Nearest


def draw(*key):
    return torch.rand(8, generator=make_generator(*key, "cpu"))


def test_generators_are_repeatable_and_apart():
    assert torch.equal(draw(1, "a"), draw(1, "a"))
    draws = [draw(1, "a"), draw(2, "a"), draw(1, "b"), draw(11, "a"), draw(1, "1/a")]
    assert len({tuple(d.tolist()) for d in draws}) == len(draws)


@pytest.mark.parametrize(("n", "part", "held"), [(100, 0.1, 10), (2, 0.1, 1), (5, 0.49, 2)])
def test_hold_out_divides_the_rows(n, part, held):
    fit, selection = hold_out(n, part, torch.Generator().manual_seed(0))
    assert len(selection) == held
    assert sorted([*fit.tolist(), *selection.tolist()]) == list(range(n))


@pytest.mark.parametrize("side", [16, 32, 2048])
def test_chunks_cover_the_rows_within_their_bound(side):
    shape = (1000, 3, side, side)
    found = list(chunks(shape))
    assert [row for part in found for row in range(1000)[part]] == list(range(1000))
    assert all((part.stop - part.start) * side**2 <= CHUNK_PIXELS for part in found) or side**2 > CHUNK_PIXELS


def test_one_image_is_no_attacker(problem):
    smooth_images, _, make_knowledge = problem
    with pytest.raises(AttackError, match="at least 2 images of the attacker, found 1"):
        make_knowledge(smooth_images(1))


@pytest.mark.parametrize(
    ("cfg", "kind"),
    [
        (MeanImage(), MeanImageAttack),
        (Linear(), LinearAttack),
        (Nearest(), NearestAttack),
        (Decoder(), DecoderAttack),
        (Gan(), GanAttack),
    ],
)
def test_settings_choose_the_attack(cfg, kind):
    assert type(make_attack(cfg)) is kind


def test_attacks_import_nothing_of_the_defenders_means():
    for path in Path(cem.attacks.__file__).parent.glob("*.py"):
        modules = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        hidden = ("cem.training", "cem.surrogates", "cem.mixture", "cem.storage.hdf5")
        assert not {module for module in modules if module.startswith(hidden)}
