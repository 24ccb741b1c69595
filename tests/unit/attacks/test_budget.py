"""A budget that ends by itself: the ladder, its rates, its end, and resumption with the same bits."""

import math

import pytest
import torch

from cem.attacks.budget import Auto, Epochs, gain
from cem.attacks.decoder import DecoderAttack
from cem.config import Decoder

from .interruption import fit_in_pieces, without_seconds
from .real import MemoryStore

SMALL = Decoder(net="res_normN0C4", batch_size=64, lr=1e-2, max_epochs=16)


def curve_of(errors):
    return [{"val_mse": float(error), "seconds": 1.0} for error in errors]


def rates(budget, epochs):
    """At the start and in the middle of each epoch."""
    curve, found = [], []
    for _ in range(epochs):
        found.append((budget.rate(curve, 0.0), budget.rate(curve, 0.5)))
        curve = curve_of([1.0] * (len(curve) + 1))
    return found


def test_each_budget_is_a_constant_rate_and_a_cool_down_of_a_quarter():
    found = rates(Auto(256), 19)
    assert found[0] == (0.0, 0.5)  # it rises
    assert found[1:3] == [(1.0, 1.0)] * 2
    assert found[3] == (1.0, 0.5)  # cools down in the fourth epoch of four
    assert found[4:7] == [(1.0, 1.0)] * 3  # from where that began, three more
    assert found[7:9] == [(1.0, 0.75), (0.5, 0.25)]  # two of eight
    assert found[9:15] == [(1.0, 1.0)] * 6
    assert found[15:] == [(1.0, 0.875), (0.75, 0.625), (0.5, 0.375), (0.25, 0.125)]
    assert [Auto.end(rung) for rung in range(4)] == [4, 9, 19, 39]


def test_a_ladder_costs_at_most_a_quarter_more_than_its_last_budget():
    assert all(Auto.end(rung) <= 1.25 * Auto.budget(rung) for rung in range(12))


def test_rungs_tell_the_least_error_of_each_cool_down_and_the_seconds_so_far():
    errors = [9, 8, 0.5, 7, 6, 6, 6, 4, 5, *[3] * 9]  # 0.5: at a high rate, and no budget's end
    assert [(rung.epochs, rung.val_mse, rung.seconds) for rung in Auto.rungs(curve_of(errors))] == [
        (4, 7.0, 4.0),
        (8, 4.0, 9.0),
    ]


@pytest.mark.parametrize(
    ("errors", "most", "epochs", "converged"),
    [
        ((7, 5, 4.0, 3.97), 256, 39, True),  # 32 epochs bring 0.75 % on 16
        ((7, 5, 4.0, 3.95, 3.95), 256, 79, True),  # 1.25 %: 64 are tried
        ((7, 7, 6.0, 5.0, 5.0), 256, 79, True),  # 8 epochs bring nothing on 4, but are too few to end
        ((7, 5, 4.0, 8.0), 256, 39, True),  # longer is worse: nothing to be had there
        ((7, 5, 4.0, 3.0), 40, 39, False),  # 64 are not allowed
        ((7, 5, 4.99, 3.0), 256, 19, True),
        ((7, 5, 4.0), 16, 19, False),
        ((7, 5), 8, 9, False),
        ((7, 7), 8, 9, False),  # as nothing may be learned for a while
    ],
)
def test_it_ends_where_twice_the_budget_brings_less_than_one_percent(errors, most, epochs, converged):
    budget, curve = Auto(most), []
    while not budget.is_over(curve):
        rung = int(math.log2(budget.place(len(curve)).budget / 4))
        curve = curve + curve_of([errors[rung]])
    assert (len(curve), budget.converged(curve)) == (epochs, converged)


def test_gain_is_on_the_best_budget_before():
    rungs = Auto.rungs(curve_of([1] * 4 + [2] * 5 + [0.99] * 10))
    assert [rung.val_mse for rung in rungs] == [1, 2, 0.99]
    assert gain(rungs) == pytest.approx(0.01)
    assert gain(rungs[:1]) == math.inf


def test_a_fixed_number_of_epochs_falls_along_a_cosine():
    assert [rate[0] for rate in rates(Epochs(2), 2)] == pytest.approx([1.0, 0.505])
    assert Epochs(3, decays=False).rate(curve_of([1]), 0.3) == 1


def fitted(knowledge, cfg=SMALL, store=None):
    attack = DecoderAttack(cfg, store)
    return attack, attack.fit(knowledge)


def weights(attack):
    return torch.cat([tensor.reshape(-1).double() for tensor in attack.net.state_dict().values()])


def test_a_fit_says_its_ladder_and_keeps_its_best_epoch(knowledge):
    _, record = fitted(knowledge)
    assert [rung.epochs for rung in record.ladder] == [4, 8, 16]
    assert len(record.curve) == 19
    assert record.held_out_mse == min(row["val_mse"] for row in record.curve)
    assert record.converged is (gain(record.ladder) < 0.01)
    assert [row["lr"] for row in record.curve[:3]] == pytest.approx([0.0075, 0.01, 0.01])  # of the last batch of four
    assert record.curve[3]["lr"] == pytest.approx(0.0025)


def test_after_a_cool_down_it_goes_on_from_where_that_began(knowledge):
    """Up to the second cool-down, the constant rate must give what it gives where no cool-down comes between."""
    record = fitted(knowledge)[1]
    constant = [row["val_mse"] for row in record.curve if row["lr"] == 0.01]
    straight = fitted_at_a_constant_rate(knowledge, 12)
    assert constant == straight[1:]


def fitted_at_a_constant_rate(knowledge, epochs):
    attack = DecoderAttack(SMALL)
    fit, _ = attack._chosen(knowledge)
    fit.loop.budget = WarmUpAlone(epochs)
    fit.run()
    return [row["val_mse"] for row in fit.state.curve]


class WarmUpAlone(Epochs):
    def rate(self, curve, part):
        return 1.0 if curve else part


@pytest.mark.parametrize("batches", [1, 7])
def test_it_resumes_with_the_same_bits_wherever_it_is_cut(problem, images, batches):
    noisy = problem[2](images[:140], noise_std=0.1)  # two batches an epoch
    whole, record = fitted(noisy)
    attack, pieces, attempts = fit_in_pieces(lambda store: DecoderAttack(SMALL, store), noisy, MemoryStore(), batches)
    assert attempts > 2
    assert torch.equal(weights(attack), weights(whole))
    assert without_seconds(pieces.curve) == without_seconds(record.curve)


def test_a_rate_that_diverges_ends_the_ladder(knowledge):
    _, record = fitted(knowledge, SMALL.model_copy(update={"lr": 1e30}))
    assert "lower lr" in record.failure
    assert record.converged is False
    assert record.held_out_mse is None
