"""Learning rate, λ(t), and which epochs a model may be chosen from."""

import pytest

from cem.config import AttentionSurrogate, GmmSurrogate, NoSurrogate, Training
from cem.training.schedule import first_selectable, learning_rate, surrogate_computed, surrogate_weight


def test_published_milestones() -> None:
    cfg = Training(epochs=240)
    rates = [learning_rate(cfg, epoch) for epoch in range(240)]
    falls = [epoch for epoch in range(1, 240) if rates[epoch] < rates[epoch - 1]]
    assert falls == [60, 120, 180, 210]
    assert rates[0] == 0.05
    assert rates[239] == pytest.approx(0.05 * 0.2**4)
    assert first_selectable(cfg) == 210


def test_selection_waits_for_the_warm_up() -> None:
    assert first_selectable(Training(epochs=10, warmup_epochs=4, milestones=())) == 4
    assert first_selectable(Training(epochs=3)) == 2  # too short for the last milestone: the last epoch


@pytest.mark.parametrize("schedule", ["constant", "ramp", "legacy_lr"])
def test_no_weight_during_the_warm_up_nor_for_none(schedule: str) -> None:
    cfg = Training(epochs=10, warmup_epochs=4)
    surrogate = GmmSurrogate(weight=3.0, schedule=schedule)
    assert [surrogate_weight(surrogate, cfg, epoch) for epoch in range(4)] == [0.0] * 4
    assert surrogate_weight(surrogate, cfg, 4) > 0
    assert surrogate_weight(NoSurrogate(), cfg, 8) == 0.0


def test_weights_of_the_schedules() -> None:
    cfg = Training(epochs=8, warmup_epochs=4, milestones=())
    ramp = [surrogate_weight(GmmSurrogate(weight=2.0, schedule="ramp"), cfg, epoch) for epoch in range(4, 8)]
    assert ramp == pytest.approx([0.5, 1.0, 1.5, 2.0])
    legacy = GmmSurrogate(weight=16.0, schedule="legacy_lr")
    assert surrogate_weight(legacy, cfg, 5) == pytest.approx(16 * 0.001 / 0.05)
    assert surrogate_weight(legacy, cfg.model_copy(update={"lr": 4e-4}), 5) == 16.0


def test_the_attention_modules_own_warm_up_comes_after_the_shared_one() -> None:
    cfg = Training(epochs=8, warmup_epochs=2, milestones=())
    ramp = AttentionSurrogate(weight=2.0, schedule="ramp", warmup_epochs=2)
    weights = [surrogate_weight(ramp, cfg, epoch) for epoch in range(8)]
    assert weights == pytest.approx([0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 1.5, 2.0])
    assert [surrogate_computed(ramp, cfg, epoch) for epoch in range(8)] == [False] * 2 + [True] * 6


@pytest.mark.parametrize("surrogate", [NoSurrogate(), GmmSurrogate(weight=0.0), AttentionSurrogate(weight=0.0)])
def test_a_surrogate_of_weight_zero_is_never_computed(surrogate) -> None:
    cfg = Training(epochs=4, warmup_epochs=1)
    assert not any(surrogate_computed(surrogate, cfg, epoch) for epoch in range(4))
