"""What settings leave open is chosen by halving."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from pydantic import ValidationError

from cem.attacks.base import Rung
from cem.attacks.decoder import DecoderAttack
from cem.attacks.tuning import halve
from cem.config import Decoder, Loss

from .interruption import fit_in_pieces, without_seconds
from .real import MemoryStore

SMALL = Decoder(net="res_normN0C4", batch_size=64, max_epochs=16, lr_sweep=(1e-5, 1e-2, 1e-4))


@dataclass
class Known:
    errors: list[float]
    asked: list[int] = field(default_factory=list)

    def rung(self, rung):
        self.asked.append(rung)
        error = self.errors[rung]
        return None if math.isinf(error) else Rung(4 * 2**rung, float(error), 0.0)


def test_the_better_half_gets_twice_the_budget_until_one_is_left():
    trials = {"a": Known([9, 3, 2, 2]), "b": Known([9, 4, 1, 0]), "c": Known([9, 5]), "d": Known([9, math.inf])}
    name, said = halve(trials)
    assert name == "b"
    assert [trial.asked for trial in trials.values()] == [[1, 2], [1, 2], [1], [1]]
    assert said == {
        "a": {"epochs": 16, "val_mse": 2},
        "b": {"epochs": 16, "val_mse": 1},
        "c": {"epochs": 8, "val_mse": 5},
        "d": {"epochs": None, "val_mse": None},
    }


def test_of_equals_the_first_is_kept():
    assert halve({"b": Known([1, 1]), "a": Known([1, 1])})[0] == "b"


def fitted(knowledge, **changes):
    attack = DecoderAttack(Decoder(**SMALL.sparse() | changes))
    return attack, attack.fit(knowledge)


def weights(attack):
    return torch.cat([tensor.reshape(-1).double() for tensor in attack.net.state_dict().values()])


def test_what_is_chosen_is_the_same_fit_as_if_it_had_been_given(knowledge):
    attack, record = fitted(knowledge)
    assert record.choices["lr"] == 0.01
    assert list(record.choices["tried"]) == ["lr 1e-05", "lr 0.01", "lr 0.0001"]
    assert [tried["epochs"] for tried in record.choices["tried"].values()] == [8, 16, 16]
    alone, of_alone = fitted(knowledge, lr=0.01)
    assert torch.equal(weights(attack), weights(alone))
    assert without_seconds(record.curve) == without_seconds(of_alone.curve)
    assert "tried" not in of_alone.choices


def test_losses_and_networks_are_chosen_too(knowledge):
    nets = ["res_normN0C2", "res_normN0C8"]
    changes = {"net": Decoder().net, "net_sweep": nets, "loss_sweep": [{}, {"mse": 0, "ssim": 1}], "lr": 0.01}
    _, record = fitted(knowledge, **changes)
    assert len(record.choices["tried"]) == 4
    assert "net res_normN0C8, loss 1 mse" in record.choices["tried"]
    assert record.choices["net"] in nets
    assert record.choices["net"] == "res_normN0C8"  # 2 channels are too few for 16 numbers
    assert Loss(**record.choices["loss"]) in (Loss(), Loss(mse=0, ssim=1))


def test_a_fixed_budget_is_kept_after_short_fits(knowledge):
    attack, record = fitted(knowledge, epochs=2, max_epochs=256)
    assert len(record.curve) == 2
    assert record.choices["lr"] == 0.01
    assert record.ladder == []
    alone, _ = fitted(knowledge, epochs=2, max_epochs=256, lr=0.01)
    assert torch.equal(weights(attack), weights(alone))


def test_a_rate_that_diverges_is_left_behind(knowledge):
    _, record = fitted(knowledge, lr_sweep=(1e30, 1e-5))
    assert record.choices["lr"] == 1e-5
    assert record.choices["tried"]["lr 1e+30"]["val_mse"] is None
    assert record.failure == ""


def test_no_budget_is_told_that_a_fit_did_not_have(knowledge):
    _, record = fitted(knowledge, max_epochs=8)
    assert {tried["epochs"] for tried in record.choices["tried"].values()} == {8}


@pytest.mark.parametrize("batches", [3, 20])
def test_tuning_resumes_with_the_same_bits(problem, images, batches):
    noisy = problem[2](images[:140], noise_std=0.1)
    whole = DecoderAttack(SMALL)
    record = whole.fit(noisy)
    attack, pieces, attempts = fit_in_pieces(lambda store: DecoderAttack(SMALL, store), noisy, MemoryStore(), batches)
    assert attempts > 2
    assert torch.equal(weights(attack), weights(whole))
    assert without_seconds(pieces.curve) == without_seconds(record.curve)
    assert pieces.choices == record.choices


def test_what_the_reference_says_is_taken_over(knowledge):
    cfg = Decoder(**SMALL.sparse() | {"net": Decoder().net, "net_sweep": ["res_normN0C2", "res_normN0C4"]})
    assert cfg.tunes_on_reference
    tuned = cfg.tuned(DecoderAttack(cfg).fit(knowledge).choices)
    assert tuned.lr == 0.01
    assert tuned.net in cfg.net_sweep
    assert not tuned.tunes_on_reference
    assert len(tuned.candidates()) == 1
    assert Decoder(**tuned.sparse()) == tuned


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tune": "run"}, False),
        ({"tune": "none"}, False),
        ({"tune": "reference"}, True),
        ({"tune": "reference", "lr": 0.1}, False),
        ({"tune": "reference", "lr": 0.1, "loss_sweep": [{}, {"l1": 1}]}, True),
    ],
)
def test_only_what_is_open_waits_for_the_reference(settings, expected):
    assert Decoder(**settings).tunes_on_reference is expected


def test_with_nothing_to_choose_the_rate_is_the_usual_one():
    ((_, cfg),) = Decoder(tune="none").candidates().items()
    assert cfg.lr == 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"net": "unet_C8", "net_sweep": ["unet_C16"]}, "expected net or net_sweep, found both"),
        ({"net_sweep": ["resnet"]}, "expected res_normN<blocks>C<channels>"),
        ({"tune": "none", "loss_sweep": [{"l1": 1}]}, "tune: none leaves no place for loss_sweep"),
        ({"tune": "none", "lr_sweep": [0.1]}, "tune: none leaves no place for lr_sweep"),
        ({"budget": "epochs"}, "budget: epochs needs epochs"),
        ({"budget": "auto", "epochs": 5}, "budget: auto leaves no place for epochs"),
        ({"patience": 5}, "patience needs epochs"),
        ({"epochs": 50, "max_epochs": 512}, "max_epochs belongs to budget: auto"),
        ({"max_epochs": 4}, "greater than or equal to 8"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Decoder(**settings)
