"""No number that is not finite reaches a weight: the surrogate sits the batch out, anything else stops the training."""

import math

import pytest
import torch
from torch import nn

from cem.config import AttentionSurrogate, Training
from cem.storage.tensors import load_checkpoint
from cem.surrogates import Surrogate, Terms
from cem.training.gradients import NonFiniteError
from cem.training.loop import TrainingError
from cem.training.protocol import train_batch

from .small import make_batch, make_state, model, train

FAILURES = {  # how it breaks → what is told
    "loss is nan": "surrogate_loss",
    "loss is inf": "surrogate_loss",
    "gradient is nan": "surrogate_grad_norm",
    "fit is nan": "fit_loss",
    "fit's gradient is nan": "fit_grad_norm",
}
CASES = [(how, who) for how in FAILURES for who in ("own", "shared", "frozen") if who == "own" or "fit" not in how]


class Broken(Surrogate):
    """A surrogate that fails in the given way, at the calls (from 0) that `fails` holds."""

    def __init__(self, how: str, fails=range(10**9)) -> None:
        super().__init__()
        self.how, self.fails = how, fails
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("calls", torch.tensor(0))

    def bent(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if int(self.calls) - 1 not in self.fails or not self.how.startswith(name):
            return value
        if self.how.endswith("gradient is nan"):
            return value + (0 * value).sqrt()  # zero, whose derivative is 0 · ∞
        return value * (math.nan if self.how.endswith("nan") else math.inf)

    def forward(self, smashed, labels, generator=None) -> Terms:
        self.calls += 1
        loss = self.bent("gradient", self.bent("loss", self.scale * smashed.square().mean()))
        return Terms(loss, loss.detach(), loss.detach())

    def fit_loss(self, smashed, labels, generator=None):
        return self.bent("fit'", self.bent("fit is", self.scale * smashed.square().mean()))


def settings(**changes) -> Training:
    return Training(**{"epochs": 3, "warmup_epochs": 1, "batch_size": 24, "probe_every": 0, **changes})


def broken_run(make_run, optimizer="own", **changes):
    return make_run(surrogate=AttentionSurrogate(optimizer=optimizer, weight=1.0), training=settings(**changes))


@pytest.mark.parametrize("protocol", ["joint", "split"])
@pytest.mark.parametrize(("how", "optimizer"), CASES)
def test_a_batch_goes_on_without_a_surrogate_that_is_not_finite(make_run, how, optimizer, protocol) -> None:
    state = make_state(broken_run(make_run, optimizer, protocol=protocol), Broken(how))
    plain = make_state(make_run(training=settings(protocol=protocol)))
    readings, failure = train_batch(state.client, state.server, make_batch(0), 1.0, True)
    expected, _ = train_batch(plain.client, plain.server, make_batch(0), 0.0, False)
    assert failure is not None
    assert failure.term == FAILURES[how]
    assert not math.isfinite(failure.value)
    assert float(state.client.surrogate.scale.detach()) == 1.0
    if how == "fit's gradient is nan":  # known only when the encoder has its gradient
        assert all(torch.isfinite(tensor).all() for tensor in model(state.client, state.server))
    else:
        assert readings == expected
        for a, b in zip(model(state.client, state.server), model(plain.client, plain.server), strict=True):
            assert torch.equal(a, b)
    state.client.surrogate.fails = ()
    _, failure = train_batch(state.client, state.server, make_batch(1), 1.0, True)
    assert failure is None
    assert math.isfinite(float(state.client.surrogate.scale.detach()))
    assert (float(state.client.surrogate.scale.detach()) == 1.0) == (optimizer == "frozen")


def test_the_first_stops_the_training_by_default(make_run, tmp_path) -> None:
    run, path = broken_run(make_run), tmp_path / "state"
    state = make_state(run, Broken("loss is nan", fails=(2,)))
    message = (
        rf"epoch 2, batch 3: expected a finite surrogate_loss, but it is nan. The last good state is kept in {path}. .*"
        "raise max_nonfinite: batch 1 of the run is one above its 0"
    )
    with pytest.raises(TrainingError, match=message):
        train(state, run, path)
    again = make_state(run, Broken("loss is nan"))
    again.restore(*load_checkpoint(path, "state"))
    assert (again.epoch, len(again.history)) == (1, 1)


def test_failures_are_counted_over_the_run_and_told_once_an_epoch(make_run, tmp_path, capsys) -> None:
    run = broken_run(make_run, max_nonfinite=5)
    state = make_state(run, Broken("gradient is nan", fails=(0, 2, 4, 5, 6)))  # 4 batches an epoch
    train(state, run, tmp_path / "state")
    assert [row.nonfinite for row in state.history] == [0, 2, 3]
    assert capsys.readouterr().err.count("the batch went without the surrogate") == 2
    assert all(math.isfinite(row.surrogate_loss) for row in state.history[1:])  # of the batches that had one
    state = make_state(run, Broken("gradient is nan", fails=(0, 2, 4, 5, 6, 7)))
    with pytest.raises(TrainingError, match=r"epoch 3, batch 4: expected a finite surrogate_grad_norm, but it is nan"):
        train(state, run, tmp_path / "state")


def test_an_epoch_without_the_surrogate_leaves_its_columns_empty(make_run, tmp_path) -> None:
    run = broken_run(make_run, max_nonfinite=100)
    state = make_state(run, Broken("loss is inf"))
    train(state, run, tmp_path / "state")
    row = state.history[-1]
    assert (row.nonfinite, row.surrogate_loss, row.leakage_nats, row.surrogate_grad_norm) == (4, None, None, None)
    assert math.isfinite(row.cross_entropy_grad_norm)


class _Poison(torch.autograd.Function):
    """The identity, with a gradient of NaNs."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * math.nan


class Poison(nn.Module):
    def forward(self, x):
        return _Poison.apply(x)


@pytest.mark.parametrize("protocol", ["joint", "split"])
@pytest.mark.parametrize(
    ("where", "term"),
    [
        ("cross entropy", "cross_entropy"),
        ("server's gradient", "server_grad_norm"),
        ("gradient at z", "cross_entropy_grad_norm"),
        ("client's gradient", "client_grad_norm"),
        ("penalty", "defense_penalty"),
        ("penalty's gradient", "defense_grad_norm"),
    ],
)
def test_anything_else_stops_before_a_weight_is_touched(make_run, where, term, protocol, monkeypatch) -> None:
    state = make_state(make_run(training=settings(protocol=protocol)))
    client, server = state.client, state.server
    match where:
        case "cross entropy":
            with torch.no_grad():
                server.classifier[-1].bias[0] = math.nan
        case "server's gradient":
            server.classifier.append(Poison())
        case "gradient at z":
            server.classifier.insert(0, Poison())
        case "client's gradient":
            client.encoder.insert(1, Poison())
        case "penalty":
            monkeypatch.setattr(type(client.defense), "penalty", lambda self, x, clean, y: clean.sum() * math.nan)
        case "penalty's gradient":
            monkeypatch.setattr(type(client.defense), "penalty", lambda self, x, clean, y: Poison()(clean).sum())
    encoder = [p.detach().clone() for p in client.encoder.parameters()]
    with pytest.raises(NonFiniteError) as raised:
        train_batch(client, server, make_batch(0), 0.0, False)
    assert raised.value.found.term == term
    assert all(torch.equal(a, b) for a, b in zip(encoder, client.encoder.parameters(), strict=True))
    if where != "cross entropy":
        assert all(torch.isfinite(p).all() for p in server.classifier.parameters())
