"""A fixed number of epochs: early end, divergence, no epochs; starting decoders; masks."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.nn.functional import avg_pool2d

from cem.attacks.decoder import DecoderAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.attacks.standard import Standard, Standardised
from cem.config import Decoder, Dropout, StartingDecoder
from cem.defenses.dropout import DropoutDefense
from cem.models import parameter_count

from .interruption import fit_in_pieces, without_seconds
from .real import MemoryStore

QUICK = Decoder(net="res_normN0C4", epochs=2, batch_size=64, tune="none")


def changed(cfg=QUICK, **changes):
    return Decoder(**{**cfg.sparse(), **changes})


def fitted(knowledge, cfg=QUICK):
    attack = DecoderAttack(cfg)
    return attack, attack.fit(knowledge)


def weights(attack):
    return torch.cat([tensor.reshape(-1).double() for tensor in attack.net.state_dict().values()])


def in_unit_interval(images):
    return bool(((images >= 0) & (images <= 1)).all())  # False for NaN


def useless_after(inner, steps):
    """What steps later than this see says nothing: what is learned then is worse."""
    done = []

    def observe(rows, generator):
        batch = len(inner.images[rows])
        done.extend([rows] if batch == 64 else [])
        return inner.observe(rows, generator) * (batch != 64 or len(done) <= steps)

    return replace(inner, observe=observe)


def test_patience_ends_a_fit_that_no_longer_gains(knowledge):
    cfg = changed(lr=2e-2, epochs=12)
    patient = fitted(useless_after(knowledge, 8), cfg)[1]
    assert len(patient.curve) == 12
    record = fitted(useless_after(knowledge, 8), changed(cfg, patience=5))[1]
    best = record.choices["epoch"]
    assert 3 <= best < 7
    assert len(record.curve) == best + 5
    assert record.choices["stopped_early"]
    assert record.converged is True  # at three quarters of the epochs, where the rate is a seventh of the first
    assert without_seconds(record.curve) == without_seconds(patient.curve[: best + 5])  # the schedule is of 12 epochs


def test_patience_that_ends_a_fit_at_a_high_rate_is_no_convergence(knowledge):
    record = fitted(useless_after(knowledge, 2), changed(lr=2e-2, epochs=50, patience=4))[1]
    assert record.choices["stopped_early"]
    assert 5 <= len(record.curve) < 10
    assert record.converged is False


@pytest.mark.parametrize("lr", [10.0, 1e30])
def test_a_rate_beyond_reason_ends_in_finite_images(images, knowledge, problem, lr):
    attack, record = fitted(knowledge, changed(lr=lr, epochs=6))
    answers = attack.reconstruct(problem[1](images))
    assert in_unit_interval(answers)
    if lr == 1e30:
        assert " in epoch 1: lower lr" in record.failure
        assert record.converged is False
        assert record.curve == []
        assert record.choices["epoch"] == 0
        untrained, _ = fitted(knowledge, changed(lr=1e-3, epochs=0))
        assert torch.equal(weights(attack), weights(untrained))
    mean_image = MeanImageAttack()
    mean_image.fit(knowledge)
    target = images.float() / 255
    assert (answers - target).square().mean() > (mean_image.mean - target).square().mean()  # the gate sees it


def test_a_failed_fit_is_not_taken_up_again(knowledge):
    make, store = partial(DecoderAttack, changed(lr=1e30)), MemoryStore()
    first = fit_in_pieces(make, knowledge, store, 100)[1]
    again = fit_in_pieces(make, knowledge, store, 0)[1]
    assert first.failure == again.failure != ""


def test_no_epochs_is_no_attack_and_says_so(images, knowledge, problem):
    attack, record = fitted(knowledge, changed(lr=1e-3, epochs=0))
    assert record.failure == "0 epochs: nothing was fitted"
    assert record.converged is None
    assert record.curve == []
    assert in_unit_interval(attack.reconstruct(problem[1](images)))


def test_an_answer_that_overflows_is_the_mean_image(images, knowledge, problem):
    attack, _ = fitted(knowledge, changed(lr=1e-3))
    z = problem[1](images[:3])
    expected = attack.reconstruct(z)
    z[1] = torch.nan
    answers = attack.reconstruct(z)
    torch.testing.assert_close(answers[1], images.float().mean(0) / 255)
    assert torch.equal(answers[[0, 2]], expected[[0, 2]])


def test_a_starting_decoder_is_fitted_like_a_decoder(knowledge, capsys):
    start = DecoderAttack(StartingDecoder(net="res_normN0C4", epochs=2, batch_size=64, lr=1e-2), name="start of x")
    record = start.fit(knowledge)
    assert torch.equal(weights(start), weights(fitted(knowledge, changed(lr=1e-2))[0]))
    assert record.choices["lr"] == 1e-2
    assert capsys.readouterr().err.startswith("start of x: epoch 1/2")


def test_a_network_is_told_which_values_are_hidden_and_they_are_the_mean_to_it():
    z = torch.tensor([0.5, 0.0, -2.0, -0.0]).view(1, 1, 2, 2)
    standard = Standard(torch.tensor(0.5), torch.tensor(2.0))
    assert Standardised(torch.nn.Identity(), standard, False)(z).flatten().tolist() == [0, -0.25, -1.25, -0.25]
    seen = Standardised(torch.nn.Identity(), standard, True)(z)
    assert seen.flatten().tolist() == [0, 0, -1.25, 0, 1, 0, 1, 0]


def test_a_decoder_that_sees_the_mask_beats_one_that_is_blind_to_it(problem):
    """Cells are black or white, and black sends almost what a hidden cell does."""
    cells = (torch.rand(600, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.5).byte()
    images = (255 * cells).repeat_interleave(4, 2).repeat_interleave(4, 3)

    def encode(images):
        return 0.05 + avg_pool2d(images.float() / 255, 4)

    inner, drop = problem[2](images[:500], encode=encode), DropoutDefense(Dropout(rate=0.4)).act
    seeing = replace(inner, masked=True, observe=lambda rows, draws: drop(inner.observe(rows, draws), draws))
    sent = drop(encode(images[500:]), torch.Generator().manual_seed(0))
    cfg = Decoder(net="res_normN0C8", epochs=6, batch_size=32, lr=1e-2)
    errors, sizes = {}, {}
    for knowledge in (seeing, replace(seeing, masked=False)):
        attack, _ = fitted(knowledge, cfg)
        errors[knowledge.masked] = (attack.reconstruct(sent) - images[500:].float() / 255).square().mean().item()
        sizes[knowledge.masked] = parameter_count(attack.net)
    # A hidden cell costs 1/4 where it is known to be hidden; else low values cost 2/7 · 5/7 each, black ones too.
    assert errors[True] < 0.9 * errors[False]
    assert sizes[True] > sizes[False]
