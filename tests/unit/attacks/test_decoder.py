import math

import pytest
import torch

from cem.attacks.base import hold_out
from cem.attacks.budget import has_converged
from cem.attacks.decoder import DecoderAttack
from cem.attacks.linear import LinearAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.config import Decoder

QUICK = Decoder(net="res_normN0C8", lr=1e-3, epochs=2, batch_size=64)


def fitted(knowledge, cfg=QUICK):
    attack = DecoderAttack(cfg)
    return attack, attack.fit(knowledge)


def weights(attack):
    return torch.cat([tensor.reshape(-1).double() for tensor in attack.net.state_dict().values()])


def test_order_of_the_attacks_where_z_is_bent(problem):
    smooth_images, bend, make_knowledge = problem
    knowledge, test = make_knowledge(smooth_images(500)), smooth_images(100, seed=1)
    errors = []
    cfg = Decoder(net="res_normN0C16", epochs=14, batch_size=32, lr=1e-2)
    for attack in (DecoderAttack(cfg), LinearAttack(), MeanImageAttack()):
        attack.fit(knowledge)
        errors.append((attack.reconstruct(bend(test)) - test.float() / 255).square().mean().item())
    decoder, linear, mean_image = errors
    assert decoder < linear < 0.5 * mean_image


def test_corruption_is_drawn_anew_each_step_and_repeated_for_selection(images, problem):
    inner, drawn = problem[2](images, noise_std=0.1), {}

    def observe(rows, generator):
        z = inner.observe(rows, generator)
        for row, values in zip(torch.arange(len(images))[rows].tolist(), z, strict=True):
            drawn.setdefault(row, []).append(tuple(values.flatten().tolist()))
        return z

    knowledge = type(inner)(inner.images, inner.labels, observe, 0, inner.device)
    fitted(knowledge, Decoder(net="res_normN0C4", lr=1e-3, epochs=3, batch_size=270))
    fit_rows, held_rows = hold_out(300, 0.1, knowledge.generator("0/split", "cpu"))
    assert all(len(set(drawn[row])) == 4 for row in fit_rows.tolist())  # the first is what z is standardised by
    assert all(len(drawn[row]) == 4 and len(set(drawn[row][1:])) == 1 for row in held_rows.tolist())


@pytest.mark.parametrize(("batch_size", "steps"), [(64, 4), (270, 1), (1000, 1)])
def test_incomplete_last_batch_is_left_out_unless_it_is_the_only_one(images, problem, batch_size, steps):
    inner, sizes = problem[2](images), []

    def observe(rows, generator):
        sizes.append(rows)
        return inner.observe(rows, generator)

    cfg = Decoder(net="res_normN0C4", lr=1e-3, epochs=1, batch_size=batch_size)
    fitted(type(inner)(inner.images, inner.labels, observe, 0, inner.device), cfg)
    held = hold_out(300, 0.1, inner.generator("0/split", "cpu"))[1]
    fit_batches = [rows for rows in sizes[1:] if not set(rows.tolist()) & set(held.tolist())]
    assert [len(rows) for rows in fit_batches] == [min(batch_size, 270)] * steps


def test_curve_has_a_row_an_epoch(knowledge):
    attack, record = fitted(knowledge)
    assert [row["epoch"] for row in record.curve] == [1, 2]
    expected = [
        1e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi * part)) / 2) for part in (3 / 8, 7 / 8)
    ]  # the last batches
    assert [row["lr"] for row in record.curve] == pytest.approx(expected)
    assert set(record.curve[0]) == {"epoch", "train_mse", "val_mse", "lr", "seconds"}
    assert record.parameters == sum(p.numel() for p in attack.net.parameters())


def test_the_best_epoch_on_held_out_images_is_kept(images, problem):
    inner, steps = problem[2](images), []

    def observe(rows, generator):
        """After eight steps (two epochs), z says nothing more: what is learned then is worse."""
        steps.extend([rows] if len(images[rows]) == 64 else [])
        return inner.observe(rows, generator) * (len(images[rows]) != 64 or len(steps) <= 8)

    knowledge = type(inner)(inner.images, inner.labels, observe, 0, inner.device)
    attack, record = fitted(knowledge, Decoder(net="res_normN0C8", epochs=6, batch_size=64, lr=0.02))
    held = hold_out(300, 0.1, knowledge.generator("0/split", "cpu"))[1]
    val = [row["val_mse"] for row in record.curve]
    assert val[-1] > 1.1 * min(val)
    error = (attack.reconstruct(inner.observe(held, None)) - inner.targets(held)).square().mean().item()
    assert error == pytest.approx(min(val), rel=1e-5)
    assert record.choices["epoch"] == val.index(min(val)) + 1


def test_scoring_does_not_depend_on_the_batch(images, knowledge, problem):
    attack, _ = fitted(knowledge)
    z = problem[1](images[:8])
    torch.testing.assert_close(attack.reconstruct(z)[:1], attack.reconstruct(z[:1]))


@pytest.mark.parametrize(
    ("val_mse", "expected"),
    [
        ([4, 3, 2, 1], None),
        ([5, 4, 3, 2, 1], False),
        ([5, 4, 3, 1, 0.985], True),
        ([5, 4, 3, 1, 0.975], False),
        ([5, 4, 3, 1, 2], True),  # the best was before
        ([9] * 8 + [9, 1], False),  # a fifth of ten epochs is two
        ([9] * 7 + [1, 1, 1], True),
    ],
)
def test_convergence_rule(val_mse, expected):
    assert has_converged([float(value) for value in val_mse]) is expected


def test_a_fit_ends_where_a_number_is_not_finite_with_the_best_weights_before(images, problem):
    inner, calls = problem[2](images), []

    def observe(rows, generator):
        calls.append(rows)
        return inner.observe(rows, generator) * (math.nan if len(calls) > 7 else 1)

    knowledge = type(inner)(inner.images, inner.labels, observe, 0, inner.device)
    attack, record = fitted(knowledge, Decoder(net="res_normN0C4", lr=1e-3, epochs=3, batch_size=64))
    assert record.failure == "train_mse is nan in epoch 2: lower lr"
    assert record.converged is False
    assert [row["epoch"] for row in record.curve] == [1]
    once = fitted(inner, Decoder(net="res_normN0C4", lr=1e-3, epochs=3, batch_size=64))[1]
    assert record.curve[0]["val_mse"] == once.curve[0]["val_mse"]
    assert attack.reconstruct(problem[1](images)).isfinite().all()


def test_a_log_gets_one_plain_line_an_epoch(knowledge, capsys):
    fitted(knowledge)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("decoder: epoch 1/2, train_mse 0.")
    assert lines[1].endswith(" 0 s left")
