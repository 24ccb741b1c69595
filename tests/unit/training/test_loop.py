"""Epoch by epoch: what the surrogate is told and when, the module's own warm-up, the probe, the history's table."""

import math

import pytest
import torch

from cem.config import AttentionSurrogate, GmmSurrogate, NoSurrogate, Threshold, Training
from cem.defenses import GaussianNoise
from cem.jobs.interruption import Interrupted
from cem.jobs.process import make_generator
from cem.mixture import Background, Family, Scored, fit_mixture
from cem.storage.tensors import load_checkpoint
from cem.surrogates import Surrogate
from cem.surrogates.base import MONITORS
from cem.training.history import Epoch, Means, history_csv, read_history
from cem.training.loop import TrainingError
from cem.training.measure import clean_smashed, probe_due

from .small import make_loader, make_state, model, train, weights

ATTENTION = AttentionSurrogate(embedding=16, slots=3, components=2)
CLOCK = ("seconds", "images_per_s", "peak_memory_mb")


def settings(**changes) -> Training:
    return Training(**{"epochs": 5, "warmup_epochs": 1, "batch_size": 24, "probe_every": 0, **changes})


def finished(make_run, path, surrogate=None, **changes):
    """State of a run that is trained to its end."""
    run = make_run(surrogate=surrogate or NoSurrogate(), training=settings(**changes))
    state = make_state(run)
    train(state, run, path)
    return state


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    assert a.keys() == b.keys()
    return all(torch.equal(a[name].nan_to_num(-1.0), b[name].nan_to_num(-1.0)) for name in a)


class Recorder(Surrogate):
    def __init__(self) -> None:
        super().__init__()
        self.told = []

    def measure_threshold(self, smashed, labels) -> None:
        self.told.append(("measure_threshold", len(smashed)))

    def begin_epoch(self, progress) -> None:
        self.told.append(progress)

    def refit(self, smashed, labels) -> None:
        self.told.append("refit")

    def monitor(self) -> dict[str, float]:
        return {"threshold": float(len(self.told))}


def test_what_a_surrogate_is_told_and_when(make_run, tmp_path) -> None:
    quantile = GmmSurrogate(threshold=Threshold(kind="quantile"), refit_every=2)
    epochs = [0.0, 1 / 3, 2 / 3, "refit", 1.0]
    for surrogate, expected, thresholds in (
        (quantile, [("measure_threshold", 96), *epochs], [None, 2.0, 3.0, 5.0, 6.0]),
        (GmmSurrogate(refit_every=2), epochs, [None, 1.0, 2.0, 4.0, 5.0]),
        (quantile.model_copy(update={"weight": 0.0}), [], [None] * 5),
        (NoSurrogate(), [], [None] * 5),
    ):
        run = make_run(surrogate=surrogate, training=settings())
        state = make_state(run, Recorder())
        state.client.surrogate.told.clear()
        train(state, run, tmp_path / "state")
        assert state.client.surrogate.told == expected
        assert [row.threshold for row in state.history] == thresholds


@pytest.mark.parametrize("statistic", ["mixture", "enhanced_variance"])
def test_the_module_warms_up_before_it_presses(make_run, tmp_path, statistic) -> None:
    surrogate = AttentionSurrogate(statistic=statistic, embedding=16, reduced=16, slots=3, warmup_epochs=2)
    changes = {"epochs": 4, "max_grad_norm": 1.0}
    plain = make_run(training=settings(**changes))
    run = make_run(surrogate=surrogate, training=settings(**changes))
    states = make_state(plain), make_state(run)
    own = [p.detach().clone() for p in states[1].client.surrogate.parameters()]
    for state, of in zip(states, (plain, run), strict=True):
        train(state, of, tmp_path / "state", until=3)
    models = [model(state.client, state.server) for state in states]
    assert all(torch.equal(a, b) for a, b in zip(*models, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(own, states[1].client.surrogate.parameters(), strict=True))
    rows = states[1].history
    assert [row.weight for row in rows] == [0.0] * 3
    assert [row.fit_loss is None for row in rows] == [True, False, False]
    assert [row.leakage_nats is None for row in rows] == [True, False, False]
    assert {row.surrogate_grad_norm for row in rows} == {None}
    assert rows[2].fit_loss < rows[1].fit_loss
    train(states[1], run, tmp_path / "state")
    assert states[1].history[3].weight == surrogate.weight
    assert states[1].history[3].surrogate_grad_norm > 0


def test_epochs_of_the_probe() -> None:
    def due(**changes) -> list[int]:
        return [epoch + 1 for epoch in range(11) if probe_due(settings(epochs=11, **changes), epoch)]

    assert due(probe_every=3, warmup_epochs=1) == [1, 3, 6, 9, 11]
    assert due(probe_every=3, warmup_epochs=5) == [5, 6, 9, 11]
    assert due(probe_every=3, warmup_epochs=0) == [3, 6, 9, 11]
    assert due(probe_every=0) == []


@pytest.mark.parametrize("surrogate", [NoSurrogate(), GmmSurrogate(), ATTENTION], ids=lambda s: s.kind)
def test_a_probe_touches_nothing(make_run, tmp_path, surrogate) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    without, with_ = (finished(make_run, tmp_path / "s", surrogate, epochs=3, probe_every=n) for n in (0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert equal(weights(without), weights(with_))
    assert [row.probe_leakage_nats is not None for row in with_.history] == [True] * 3
    assert [row.probe_leakage_nats for row in without.history] == [None] * 3


def test_the_probe_is_fitted_to_private_and_scored_on_val(make_run, tmp_path) -> None:
    run = make_run(training=settings(epochs=2, probe_every=1))
    state = make_state(run)
    train(state, run, tmp_path / "state")
    private = clean_smashed(state.client.encoder, state.client.defense, make_loader(run, 1, state.generators["data"]))
    val = clean_smashed(state.client.encoder, state.client.defense, make_loader(run, 2, state.generators["data"]))
    draws = make_generator(run.seed, "probe/1", "cpu")
    options = {"components": 3, "covariance": "diag", "fit": "em", "noise_std": run.noise_std}
    mixture = fit_mixture(private[0].flatten(1), private[1], **options, generator=draws)
    family = Family({"probe": mixture}, Background.of([(private[0].flatten(1), private[1])]))

    def bound(smashed: torch.Tensor, labels: torch.Tensor) -> float:
        scored = Scored(lambda: [(smashed.flatten(1), labels)], labels)
        return float(family.information(["probe"], scored, GaussianNoise(run.noise_std), draws)["probe"].mean())

    held_out, seen = bound(*val), bound(*private)
    assert state.history[-1].probe_leakage_nats == pytest.approx(held_out, rel=1e-5)
    assert seen < 0.95 * held_out


def test_no_noise_no_probe(make_run, tmp_path) -> None:
    run = make_run(noise_std=0.0, surrogate=ATTENTION, training=settings(epochs=2, probe_every=1))
    state = make_state(run)
    train(state, run, tmp_path / "state")
    assert [row.probe_leakage_nats for row in state.history] == [None, None]
    assert state.history[1].leakage_nats == math.inf
    assert state.history[1].nonfinite == 0


RESUMED = {
    "none": NoSurrogate(),
    "gmm quantile": GmmSurrogate(threshold=Threshold(kind="quantile")),
    "attention scheduled": ATTENTION.model_copy(update={"threshold": Threshold(kind="schedule"), "warmup_epochs": 1}),
    "enhanced_variance quantile, shared": AttentionSurrogate(
        statistic="enhanced_variance", reduced=16, slots=3, optimizer="shared", threshold=Threshold(kind="quantile")
    ),
}


@pytest.mark.parametrize("protocol", ["joint", "split"])
@pytest.mark.parametrize("surrogate", RESUMED)
def test_stopped_at_any_batch_it_ends_with_the_same_bits(make_run, tmp_path, surrogate, protocol) -> None:
    changes = {"epochs": 3, "protocol": protocol, "probe_every": 2}
    run, path = make_run(surrogate=RESUMED[surrogate], training=settings(**changes)), tmp_path / "stopped"
    expected = finished(make_run, tmp_path / "whole", RESUMED[surrogate], **changes)
    for looks in (4, 2, 0, None):  # stops after batches 5, 8 (the end of an epoch) and 9 of 12
        state = make_state(run)
        if path.exists():
            state.restore(*load_checkpoint(path, "state"))
        if looks is None:
            train(state, run, path)
        else:
            with pytest.raises(Interrupted):
                train(state, run, path, looks=looks)
    assert equal(weights(state), weights(expected))
    unclocked = [[row._replace(**dict.fromkeys(CLOCK)) for row in s.history] for s in (state, expected)]
    assert unclocked[0] == unclocked[1]


def test_batches_without_the_surrogate_are_counted_on_after_a_stop(make_run, tmp_path, monkeypatch) -> None:
    run, path = make_run(surrogate=ATTENTION, training=settings(epochs=2, max_nonfinite=2)), tmp_path / "state"
    loss = type(make_state(run).client.surrogate).fit_loss
    broken = lambda *args: loss(*args) * math.nan  # noqa: E731
    monkeypatch.setattr(type(make_state(run).client.surrogate), "fit_loss", broken)
    state = make_state(run)
    train(state, run, path, until=1)
    with pytest.raises(Interrupted):
        train(state, run, path, looks=1)
    again = make_state(run)
    again.restore(*load_checkpoint(path, "state"))
    assert (again.step, again.nonfinite) == (2, 2)
    with pytest.raises(TrainingError, match=r"epoch 2, batch 3: .*batch 3 of the run is one above its 2"):
        train(again, run, path)


def test_the_table_says_what_the_history_holds(make_run, tmp_path) -> None:
    assert set(MONITORS) <= set(Epoch._fields)
    state = finished(make_run, tmp_path / "state", ATTENTION, epochs=2, probe_every=1)
    (tmp_path / "history.csv").write_text(history_csv(state.history))
    assert read_history(tmp_path / "history.csv") == state.history
    last = state.history[-1]
    assert last.defense_penalty is None
    for name in ("attention_gate", "slot_usage_entropy", "surrogate_grad_norm", "probe_leakage_nats", "leakage_nats"):
        assert math.isfinite(getattr(last, name)), name


def test_the_table_says_how_often_and_how_hard_gradients_were_clipped(make_run, tmp_path) -> None:
    norms = [finished(make_run, tmp_path / "a", epochs=2).history[0]]
    limit = norms[0].client_grad_norm  # the mean: some batches are above it, some are below
    row = finished(make_run, tmp_path / "b", epochs=2, max_grad_norm=limit).history[0]
    assert 0 < row.client_clipped < 1
    assert 0 < row.client_clip_factor < 1
    hard = finished(make_run, tmp_path / "c", epochs=2, max_grad_norm=1e-4).history[0]
    assert (hard.client_clipped, hard.server_clipped) == (1.0, 1.0)
    assert hard.client_clip_factor < 0.1
    never = finished(make_run, tmp_path / "d", epochs=2, max_grad_norm=1e6).history[0]
    assert (never.client_clipped, never.client_clip_factor) == (0.0, None)
    assert norms[0].client_clipped is None


def test_a_table_of_an_older_version_is_read(make_run, tmp_path) -> None:
    row = finished(make_run, tmp_path / "state", epochs=2, max_grad_norm=1e-4).history[0]
    new = [name for name in Epoch._fields if "clip" in name]
    assert len(new) == 4
    old = {name: value for name, value in row._asdict().items() if name not in new}
    values = ["" if value is None else str(value) for value in old.values()]
    (tmp_path / "history.csv").write_text(f"{','.join(old)}\n{','.join(values)}\n")
    assert read_history(tmp_path / "history.csv") == [row._replace(**dict.fromkeys(new))]


def test_the_kept_epoch_has_the_final_weight(make_run, tmp_path, monkeypatch) -> None:
    """Though the accuracy falls as soon as the surrogate presses."""
    falling = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    monkeypatch.setattr("cem.training.loop.measure_accuracy", lambda *args: next(falling))
    surrogate = ATTENTION.model_copy(update={"warmup_epochs": 3, "weight": 4.0})
    state = finished(make_run, tmp_path / "state", surrogate, epochs=6, milestones=())
    assert [row.weight for row in state.history] == [0.0, 0.0, 0.0, 0.0, 4.0, 4.0]
    assert (state.best_epoch, state.best_accuracy) == (4, 0.5)


def test_means_are_over_the_batches_that_have_a_reading() -> None:
    means = Means()
    means.add({"a": 1.0, "b": 4.0})
    means.add({"a": 2.0})
    assert means.values() == {"a": 1.5, "b": 4.0}
