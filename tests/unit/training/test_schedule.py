"""Learning rate, λ(t), and which epochs a model may be chosen from."""

import pytest

from cem.config import AttentionSurrogate, GmmSurrogate, NoSurrogate, Threshold, Training
from cem.training.schedule import first_selectable, surrogate_computed, surrogate_weight


def test_published_milestones() -> None:
    cfg = Training(epochs=240)
    rates = [cfg.lr_at(epoch) for epoch in range(240)]
    falls = [epoch for epoch in range(1, 240) if rates[epoch] < rates[epoch - 1]]
    assert falls == [60, 120, 180, 210]
    assert rates[0] == 0.05
    assert rates[239] == pytest.approx(0.05 * 0.2**4)
    assert first_selectable(NoSurrogate(), cfg) == 210


def test_selection_waits_for_the_warm_up() -> None:
    assert first_selectable(NoSurrogate(), Training(epochs=10, warmup_epochs=4, milestones=())) == 4
    assert first_selectable(NoSurrogate(), Training(epochs=3)) == 2  # too short for the last milestone: the last epoch


MOVING = Threshold(kind="schedule", start=0.01, end=0.001)
SELECTABLE = {
    "constant": (GmmSurrogate(), {}, 1),
    "own warm-up": (AttentionSurrogate(weight=4.0, warmup_epochs=4), {}, 5),
    "own warm-up of weight 0": (AttentionSurrogate(weight=0.0, warmup_epochs=4), {}, 1),
    "ramp": (GmmSurrogate(schedule="ramp"), {}, 7),
    "ramp after an own warm-up": (AttentionSurrogate(schedule="ramp", warmup_epochs=2), {}, 7),
    "ramp of one epoch": (GmmSurrogate(schedule="ramp"), {"warmup_epochs": 7}, 7),
    "legacy_lr": (GmmSurrogate(schedule="legacy_lr"), {"lr": 1e-3, "milestones": (0.5,)}, 4),
    "late milestone": (AttentionSurrogate(warmup_epochs=2), {"milestones": (0.75,)}, 6),
    "moving threshold": (GmmSurrogate(threshold=MOVING), {}, 7),
    "moving threshold of the module": (AttentionSurrogate(threshold=MOVING), {}, 7),
    "moving threshold of weight 0": (GmmSurrogate(weight=0.0, threshold=MOVING), {}, 1),
    "threshold that stays": (GmmSurrogate(threshold=MOVING.model_copy(update={"end": 0.01})), {}, 1),
    "threshold below its floor": (GmmSurrogate(threshold=MOVING.model_copy(update={"floor": 0.1})), {}, 1),
}


@pytest.mark.parametrize("surrogate", [GmmSurrogate(), AttentionSurrogate(warmup_epochs=2)])
@pytest.mark.parametrize(
    ("training", "refused"),
    [
        ({}, True),  # 0.05 to the end: λ / 50
        ({"milestones": (0.5,)}, True),  # 0.01: λ / 10
        ({"milestones": (0.25, 0.5, 0.75)}, False),  # 0.0004
        ({"lr": 4.1e-4}, True),  # the limit itself: 2.4 λ
        ({"lr": 4e-4}, False),
        ({"milestones": (0.9,), "lr_decay": 1e-3}, True),  # only the last epoch is over 0.9 of 8: none is
    ],
)
def test_legacy_lr_is_refused_where_no_epoch_has_the_stated_weight(surrogate, training, refused) -> None:
    cfg = Training(**{"epochs": 8, "warmup_epochs": 1, "milestones": (), **training})
    pressed = surrogate.model_copy(update={"schedule": "legacy_lr"})
    if refused:
        with pytest.raises(ValueError, match=r"legacy_lr has the stated weight only at .* below 0\.00041"):
            pressed.check_training(cfg)
    else:
        pressed.check_training(cfg)
        assert surrogate_weight(pressed, cfg, first_selectable(pressed, cfg)) == pressed.weight
    surrogate.check_training(cfg)
    pressed.model_copy(update={"weight": 0.0}).check_training(cfg)


@pytest.mark.parametrize(("surrogate", "changes", "first"), SELECTABLE.values(), ids=SELECTABLE.keys())
def test_selection_waits_for_the_final_weight_and_threshold(surrogate, changes, first) -> None:
    cfg = Training(**{"epochs": 8, "warmup_epochs": 1, "milestones": (), **changes})
    assert first_selectable(surrogate, cfg) == first
    weights = [surrogate_weight(surrogate, cfg, epoch) for epoch in range(first, 8)]
    assert set(weights) == {surrogate_weight(surrogate, cfg, 7)}


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
