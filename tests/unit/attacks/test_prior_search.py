from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from cem.attacks import AttackError
from cem.attacks.optimization import OptimizationAttack
from cem.attacks.posterior import LEAST_NOISE, noise_of
from cem.attacks.prior_search import PriorSearchAttack
from cem.attacks.standard import observed_spread
from cem.config import Optimization, PriorSearch

from .interruption import fit_in_pieces, without_seconds
from .real import MemoryStore, convolution, make_knowledge, mse, noise, seen, small_digits

QUICK = PriorSearch(
    net="unet_C8", epochs=8, batch_size=32, lr=5e-3, samples=4, steps=8, iterations=5, selection_images=8
)


@pytest.fixture(scope="module")
def example():
    """An attack under noise, its record, and what it knows."""
    knowledge = make_knowledge(small_digits(600), convolution(), noise(0.05))
    attack = PriorSearchAttack(QUICK)
    return attack, attack.fit(knowledge), knowledge


def test_under_noise_it_beats_the_search_without_a_prior(example):
    attack, record, knowledge = example
    test = make_knowledge(small_digits(60, start=3000), knowledge.encoder, noise(0.05))
    search = OptimizationAttack(Optimization(steps=60, tv=(0.03, 0.1), posterior=(), selection_images=16))
    search.fit(replace(knowledge, encoder=deepcopy(knowledge.encoder)))  # it lays the weights out anew
    error, least = mse(attack, test), (attack.mean - test.targets(slice(None))).square().mean().item()
    print(f"{error:.5f}, search {mse(search, test):.5f}, mean image {least:.5f}, {record.held_out_mse:.5f}")
    assert error < 0.9 * least
    assert error < 0.9 * mse(search, test)
    assert record.held_out_mse == pytest.approx(error, rel=0.5)
    assert not record.failure


def test_its_answers_explain_z_as_well_as_the_noise_lets_them(example):
    attack, _, knowledge = example
    z = seen(knowledge)[:40]
    samples = attack.sample(z, 2).flatten(0, 1)
    residual = (knowledge.encoder(samples) - z.repeat_interleave(2, 0)).square().mean().sqrt()
    assert 0.5 * 0.05 < residual < 1.5 * 0.05


@pytest.mark.parametrize("std", [0.0, 0.05, 0.3])
def test_the_noise_is_measured_and_a_hundredth_of_the_spread_stands_in_for_less(std):
    knowledge = make_knowledge(small_digits(300), convolution(), noise(std))
    choices = PriorSearchAttack(QUICK.model_copy(update={"epochs": 1})).fit(knowledge).choices
    least = LEAST_NOISE * observed_spread(knowledge, visible=True).by_value().scale.item()
    assert choices["noise_std"] == pytest.approx(std, rel=0.02, abs=1e-6)
    assert choices["assumed_noise_std"] == pytest.approx(max(std, least), rel=0.02)


def test_what_is_hidden_is_no_noise():
    def corrupt(z, generator):
        hidden = torch.rand(z.shape, generator=generator) < 0.3
        return torch.where(hidden, 0.0, z + 0.05 * torch.randn(z.shape, generator=generator))

    knowledge = make_knowledge(small_digits(300), convolution(), corrupt, masked=True)
    found = noise_of(knowledge, knowledge.encoder, torch.Generator())
    assert found.measured == pytest.approx(0.05, rel=0.03)


def test_in_pieces_it_is_the_same(example):
    whole, expected, knowledge = example
    attack, record, attempts = fit_in_pieces(
        lambda store: PriorSearchAttack(QUICK, store), knowledge, MemoryStore(), 90
    )
    assert attempts > 1
    attack.store = MemoryStore()
    assert without_seconds(record.curve) == without_seconds(expected.curve)
    assert record.choices == expected.choices
    assert torch.equal(attack.reconstruct(seen(knowledge)[:3]), whole.reconstruct(seen(knowledge)[:3]))


def test_without_the_encoder_it_says_what_to_set():
    knowledge = make_knowledge(small_digits(30), convolution())
    with pytest.raises(AttackError, match="Set encoder: weights"):
        PriorSearchAttack(QUICK).fit(replace(knowledge, encoder=None))
