"""The objective is the sum that it is said to be, and its gradient at ẑ is that sum's."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from cem.config import AttentionSurrogate, Dropout, NoPeek, Training
from cem.training.objective import objective, score

from .small import make_batch, make_state

SURROGATE = AttentionSurrogate(embedding=16, slots=3, components=2)
WEIGHT = 0.7


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def client(make_run):
    """Makes a client, as it is before the first batch, whose surrogate is fitted by whom it is said."""

    def made(optimizer: str = "own"):
        settings = SURROGATE.model_copy(update={"optimizer": optimizer})
        defenses = (Dropout(rate=0.3), NoPeek(weight=0.5))
        training = Training(epochs=2, warmup_epochs=0)
        state = make_state(make_run(surrogate=settings, defenses=defenses, training=training))
        return state.client, state.server.classifier

    return made


def leaf(encoder, batch) -> torch.Tensor:
    with torch.no_grad():
        return encoder(batch.images).clone().requires_grad_()


@pytest.mark.parametrize("optimizer", ["own", "shared", "frozen"])
def test_it_is_the_sum_of_its_terms(client, optimizer) -> None:
    batch = make_batch(0)
    party, classifier = client(optimizer)
    clean = leaf(party.encoder, batch)
    terms = [
        cross_entropy(classifier(party.defense.corrupt(clean, party.noise)), batch.labels),
        party.defense.penalty(batch.images, clean, batch.labels),
        WEIGHT * party.surrogate(clean, batch.labels, party.draws).loss,
    ]
    expected = torch.autograd.grad(sum(terms), clean)[0]
    fit = party.surrogate.fit_loss(clean.detach(), batch.labels, party.draws) if optimizer == "own" else 0.0

    party, classifier = client(optimizer)  # with its generators as they were
    clean = leaf(party.encoder, batch)
    sent = party.terms(batch.images, clean, batch.labels, WEIGHT, with_surrogate=True)
    total = objective(score(classifier(sent.z), batch.labels, clean.dtype), sent)
    torch.testing.assert_close(total, sum(terms) + fit, rtol=1e-12, atol=0)
    total.backward()
    torch.testing.assert_close(clean.grad, expected, rtol=1e-9, atol=1e-15)


def test_at_weight_zero_the_surrogate_is_out_of_the_graph(client) -> None:
    """What is left is its own fit, which does not reach the encoder."""
    batch, gradients = make_batch(0), []
    for with_surrogate in (False, True):
        party, _ = client()
        clean = leaf(party.encoder, batch)
        sent = party.terms(batch.images, clean, batch.labels, 0.0, with_surrogate)
        (sent.own + sent.z.sum()).backward()
        gradients.append(clean.grad)
        fitted = [parameter.grad is not None for parameter in party.surrogate.parameters()]
        assert any(fitted) == with_surrogate
    assert torch.equal(*gradients)


def test_the_weight_scales_the_surrogates_gradient_alone(client) -> None:
    batch, found = make_batch(0), {}
    for weight in (0.0, 1.0, 3.0):
        party, _ = client()
        clean = leaf(party.encoder, batch)
        party.terms(batch.images, clean, batch.labels, weight, with_surrogate=True).own.backward()
        found[weight] = clean.grad
    torch.testing.assert_close(found[3.0] - found[0.0], 3 * (found[1.0] - found[0.0]), rtol=1e-9, atol=1e-15)
