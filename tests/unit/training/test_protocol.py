"""Joint and split training are one objective: same weights; each term's gradient norm is what autograd says."""

import gc
import math
import warnings

import pytest
import torch
from torch.nn.functional import cross_entropy

from cem.config import Adversarial, Dropout, NoPeek, ShapedNoise, TopK, Training, Vib
from cem.training.protocol import train_batch
from cem.training.schedule import surrogate_computed, surrogate_weight

from .small import make_batch, make_state, model
from .steps import SURROGATES

DEFENSES = {  # and whether gradients are clipped
    "noise": ((), None),
    "dropout": ((Dropout(rate=0.3),), None),
    "topk": ((TopK(fraction=0.3),), None),
    "nopeek": ((NoPeek(weight=0.5),), None),
    "adversarial": ((Adversarial(net="res_normN0C4", threshold=-1),), None),
    "nopeek clipped": ((NoPeek(weight=0.5),), 0.3),
}


@pytest.fixture
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def training(**settings) -> Training:
    return Training(epochs=2, warmup_epochs=0, **settings)


def train_steps(run, steps: int):
    """The run's parties after some steps of its first epoch."""
    state, weight = make_state(run), surrogate_weight(run.surrogate, run.training, 0)
    with_surrogate = surrogate_computed(run.surrogate, run.training, 0)
    for step in range(steps):
        train_batch(state.client, state.server, make_batch(step), weight, with_surrogate)
    return state


@pytest.mark.parametrize("defense", DEFENSES)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_joint_and_split_give_the_same_weights(double, make_run, surrogate, defense) -> None:
    (defenses, max_grad_norm), found = DEFENSES[defense], []
    for protocol in ("joint", "split"):
        settings = training(protocol=protocol, max_grad_norm=max_grad_norm)
        run = make_run(surrogate=SURROGATES[surrogate], defenses=defenses, training=settings)
        state = train_steps(run, 6)
        found.append([*model(state.client, state.server), *map(torch.clone, state.client.surrogate.parameters())])
    for joint, split in zip(*found, strict=True):
        assert torch.isfinite(joint).all()
        torch.testing.assert_close(split, joint, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("protocol", ["joint", "split"])
@pytest.mark.parametrize("surrogate", ["gmm bound", "attention mixture", "attention shared"])
def test_gradient_norms_are_those_of_autograd(double, make_run, surrogate, protocol) -> None:
    defenses = (Dropout(rate=0.3), NoPeek(weight=0.5))
    run = make_run(surrogate=SURROGATES[surrogate], defenses=defenses, training=training(protocol=protocol))
    batch, weight = make_batch(0), 0.7
    state = make_state(run)
    client = state.client
    clean = client.encoder(batch.images)
    terms = {
        "cross_entropy": cross_entropy(
            state.server.classifier(client.defense.corrupt(clean, client.noise)), batch.labels
        ),
        "defense": client.defense.penalty(batch.images, clean, batch.labels),
        "surrogate": weight * client.surrogate(clean, batch.labels, client.draws).loss,
    }
    expected = {
        name: float(torch.autograd.grad(term, clean, retain_graph=True)[0].norm()) for name, term in terms.items()
    }
    state = make_state(run)  # with its generators as they were
    readings, failure = train_batch(state.client, state.server, batch, weight, True)
    assert failure is None
    for name, norm in expected.items():
        assert norm > 0
        assert readings[f"{name}_grad_norm"] == pytest.approx(norm, rel=1e-9)


def test_terms_that_are_not_computed_have_no_readings(make_run) -> None:
    state = make_state(make_run(training=training()))
    readings, _ = train_batch(state.client, state.server, make_batch(0), 0.0, False)
    computed = {"cross_entropy", "train_accuracy", "cross_entropy_grad_norm", "client_grad_norm", "server_grad_norm"}
    assert set(readings) == computed


@pytest.mark.parametrize("protocol", ["joint", "split"])
@pytest.mark.parametrize("surrogate", ["none", "attention shared"])
def test_each_party_is_clipped_by_itself(double, make_run, surrogate, protocol) -> None:
    """The client with the surrogate's parameters, where these share its optimizer."""
    limit = 1e-3
    settings = training(protocol=protocol, max_grad_norm=limit, weight_decay=0.0, momentum=0.0)
    state = make_state(make_run(surrogate=SURROGATES[surrogate], training=settings))
    client = [*state.client.encoder.parameters(), *state.client.surrogate.parameters()]
    parties = {"client": client, "server": [*state.server.classifier.parameters()]}
    before = {name: [p.detach().clone() for p in party] for name, party in parties.items()}
    readings, _ = train_batch(state.client, state.server, make_batch(0), 0.7, surrogate != "none")
    for name, party in parties.items():
        assert readings[f"{name}_grad_norm"] > limit
        assert readings[f"{name}_clipped"] == 1.0
        assert readings[f"{name}_clip_factor"] == pytest.approx(limit / readings[f"{name}_grad_norm"], rel=1e-2)
        moved = [b.detach() - a for a, b in zip(before[name], party, strict=True)]
        scale = readings[f"{name}_grad_norm"] / (readings[f"{name}_grad_norm"] + 1e-6)  # as PyTorch clips
        assert float(torch.nn.utils.get_total_norm(moved)) == pytest.approx(settings.lr * limit * scale, rel=1e-6)


def test_split_sends_only_z_and_its_gradient(make_run, monkeypatch) -> None:
    state = make_state(make_run(training=training(protocol="split")))
    received = []
    answer = state.server.answer

    def spy(z, labels):
        received.append((z.requires_grad, z.grad_fn))
        gradient, readings = answer(z, labels)
        received.append(gradient.grad_fn)
        return gradient, readings

    monkeypatch.setattr(state.server, "answer", spy)
    train_batch(state.client, state.server, make_batch(0), 0.0, False)
    assert received == [(False, None), None]


@pytest.mark.parametrize("defenses", [(), (NoPeek(weight=0.5),)], ids=["noise", "nopeek"])
def test_a_step_leaves_no_tensor_behind(make_run, defenses) -> None:
    """Hooks on the graph that hold the graph would be a cycle that Python cannot see."""
    run = make_run(surrogate=SURROGATES["attention mixture"], defenses=defenses, training=training())
    state, counts = train_steps(run, 3), []
    for step in range(3, 9):
        train_batch(state.client, state.server, make_batch(step), 0.1, with_surrogate=True)
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some of torch's lazy modules warn when they are looked at
            # By its type: to ask a weak proxy what it is fails where what it stood for is gone.
            counts.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
    assert counts[0] == counts[-1]


@pytest.mark.parametrize("surrogate", ["none", "attention shared"])
@pytest.mark.parametrize("defense", [Vib(), ShapedNoise(shape="learned")], ids=["vib", "shaped"])
def test_the_size_of_learned_noise_does_not_decay(make_run, defense, surrogate) -> None:
    """Without a gradient it stays; weight decay would draw s to 1, and shares of the variance to each other."""
    settings = training(weight_decay=0.1, lr=0.5)
    run = make_run(noise_std=0.0, surrogate=SURROGATES[surrogate], defenses=(defense,), training=settings)
    client = make_state(run).client
    learned, encoder = client.defense.learned, client.encoder
    with torch.no_grad():
        for parameter in learned.parameters():
            parameter.fill_(0.5)
    parameters = [*encoder.parameters(), *learned.parameters(), *client.surrogate.parameters()]
    in_order = [one for group in client.optimizer.param_groups for one in group["params"]]
    expected = parameters if surrogate == "attention shared" else parameters[: len(in_order)]
    assert all(one is other for one, other in zip(in_order, expected, strict=True))  # a warm-up's state is by number
    before = [parameter.detach().clone() for parameter in encoder.parameters()]
    for parameter in in_order:
        parameter.grad = torch.zeros_like(parameter)
    client.optimizer.step()
    assert all((parameter == 0.5).all() for parameter in learned.parameters())
    torch.testing.assert_close([*encoder.parameters()], [0.95 * one for one in before])


@pytest.mark.parametrize("surrogate", ["gmm bound", "attention mixture", "attention enhanced_variance"])
def test_the_surrogate_goes_by_the_noise_that_a_defence_has_learned(make_run, surrogate) -> None:
    """The terms of a batch are those of a surrogate that was made for it."""
    run = make_run(
        noise_std=0.0, surrogate=SURROGATES[surrogate], defenses=(Vib(initial_std=0.1),), training=training()
    )
    found = {}
    for moved in (False, True):
        state = make_state(run.model_copy(update={"defenses": (Vib(initial_std=0.1 if moved else 0.4),)}))
        client = state.client
        if moved:
            with torch.no_grad():
                client.defense.learned["vib"].bias.fill_(math.log(0.4))
                client.defense.learned["vib"].mean_square.fill_(0.4**2)
        batch = make_batch(0)
        sent = client.send(batch.images, batch.labels, 1.0, True)
        found[moved] = sent.values["surrogate_loss"]
        assert client.surrogate.noise_std == pytest.approx(0.4)
        assert client.surrogate.threshold.noise_std == pytest.approx(0.4)
    torch.testing.assert_close(found[True], found[False])
