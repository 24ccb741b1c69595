"""A fit that starts from a file: what is this run's, what is the file's, and what is said of it."""

from dataclasses import replace

import pytest
import torch

from cem.attacks import make_attack
from cem.attacks.budget import has_converged
from cem.attacks.weights import save_weights
from cem.config import Decoder, Gan, Optimization, StartingDecoder

from . import real

SETTINGS = {"net": "res_normN0C8", "lr": 0.003, "batch_size": 32}


def scaled(knowledge, factor):
    """The same attacker, whose z are so many times as large."""
    return replace(knowledge, observe=lambda rows, generator: factor * knowledge.observe(rows, generator))


@pytest.fixture(scope="module")
def knowledge():
    torch.manual_seed(0)
    return real.make_knowledge(real.small_digits(300), real.convolution())


@pytest.fixture(scope="module")
def path(knowledge, tmp_path_factory):
    """A file of a decoder that was fitted to these z."""
    attack = make_attack(Decoder(**SETTINGS, epochs=20))
    fitted = attack.fit(knowledge)
    file = tmp_path_factory.mktemp("weights") / "decoder.safetensors"
    save_weights(file, attack.weights(), fitted, None, [])
    return str(file)


def error(attack, knowledge):
    images = attack.reconstruct(knowledge.observe(torch.arange(100), torch.Generator().manual_seed(1)))
    return (images - knowledge.targets(torch.arange(100))).square().mean().item()


def test_small_values_hide_nothing_from_a_fit_that_starts_from_a_file(knowledge, path):
    """The file's standardisation of z is of larger values: this run's takes its place where the fit goes on."""
    weak = scaled(knowledge, 1e-4)
    attack = make_attack(Decoder(**SETTINGS, weights=path, epochs=3))
    attack.fit(weak)
    as_ever = make_attack(Decoder(**SETTINGS, weights=path, epochs=3))
    as_ever.fit(knowledge)
    assert error(attack, weak) == pytest.approx(error(as_ever, knowledge), rel=0.01)
    unchanged = make_attack(Decoder(**SETTINGS, weights=path, epochs=0))
    unchanged.fit(weak)
    assert error(unchanged, weak) > 1.3 * error(attack, weak)


def test_a_fit_that_never_comes_near_its_start_has_not_converged(knowledge, path):
    """Its curve is flat at its end, for the cosine's sake: that alone would count as converged."""
    ruined = make_attack(Decoder(**SETTINGS | {"lr": 3.0}, weights=path, epochs=10)).fit(knowledge)
    assert ruined.choices["epoch"] == 0
    assert has_converged([row["val_mse"] for row in ruined.curve])
    assert ruined.converged is False


def test_what_is_held_out_here_may_have_been_fitted_to_there_so_its_error_says_nothing(knowledge, path):
    assert make_attack(Decoder(**SETTINGS, weights=path, epochs=1)).fit(knowledge).held_out_mse is None
    start = StartingDecoder(**SETTINGS, weights=path, epochs=0)
    gan = Gan(net=SETTINGS["net"], start="decoder", decoder=start, epochs=1, batch_size=32)
    assert make_attack(gan).fit(knowledge).held_out_mse is None
    search = Optimization(start="decoder", decoder=start, steps=2, tv=(0.0,), posterior=(1.0,), selection_images=8)
    assert make_attack(search).fit(knowledge).held_out_mse is None
    assert make_attack(Decoder(**SETTINGS, epochs=1)).fit(knowledge).held_out_mse is not None
