"""Training against an adversary: it is worth something, and its state goes on through warm-ups and interruptions."""

import pytest
import torch
from torch.nn.functional import interpolate, mse_loss

from cem.config import Adversarial, Run, Training
from cem.data.loader import Batch
from cem.models import make_decoder, smashed_shape
from cem.training.protocol import train_batch
from cem.training.state import State

from .small import CLASSES, SHAPE, make_batch, make_state

NET = "res_normN0C4"


def smooth(seed: int, size: int = 16) -> Batch:
    """Images with something to recover: few large patches, a little of the class."""
    draws, labels = torch.Generator().manual_seed(seed), torch.arange(size) % CLASSES
    images = interpolate(torch.rand(size, 1, 4, 4, generator=draws), size=SHAPE[1:], mode="bilinear")
    return Batch(0.8 * images + 0.1 * labels.view(-1, 1, 1, 1), labels)


def trained(run: Run, steps: int, batches=make_batch) -> State:
    state = make_state(run)
    for step in range(steps):
        train_batch(state.client, state.server, batches(step), 0.0, False)
    return state


def error_of(state: State, decoder: torch.nn.Module) -> float:
    batch = smooth(5000, 200)
    with torch.no_grad():
        return float(mse_loss(decoder.eval()(state.client.encoder.eval()(batch.images)), batch.images))


def fresh_error(state: State) -> float:
    """Of a decoder that knows the encoder as it has become, as an attack's does."""
    encoder = state.client.encoder.eval()
    decoder = make_decoder(NET, smashed_shape(encoder, SHAPE), SHAPE, torch.Generator().manual_seed(9))
    adam = torch.optim.Adam(decoder.parameters(), 3e-3)
    for step in range(60):
        batch = smooth(1000 + step)
        with torch.no_grad():
            clean = encoder(batch.images)
        adam.zero_grad()
        mse_loss(decoder(clean), batch.images).backward()
        adam.step()
    return error_of(state, decoder)


def adversary(state: State) -> torch.nn.Module:
    return state.client.defense.training_state.modules["adversarial_adversary"]


def test_it_raises_the_error_of_its_own_decoder_and_of_a_fresh_one(make_run) -> None:
    own, fresh = {}, {}
    for weight in (1e-9, 10.0):
        defense = Adversarial(net=NET, weight=weight, threshold=0.1, lr=0.01)
        training = Training(epochs=2, warmup_epochs=0, lr=0.1)
        state = trained(make_run(noise_std=0.0, defenses=(defense,), training=training), 80, smooth)
        own[weight] = error_of(state, adversary(state).get_submodule("decoder"))
        fresh[weight] = fresh_error(state)
    assert own[10.0] > 1.5 * own[1e-9]
    assert fresh[10.0] > 1.5 * fresh[1e-9]


def test_a_warm_up_hands_the_adversary_on(make_run) -> None:
    defense = Adversarial(net=NET, threshold=-1, interval=2)
    run = make_run(defenses=(defense,), training=Training(epochs=2, warmup_epochs=1))
    straight, warm, rest = trained(run, 5), trained(run, 3), make_state(run)
    rest.restore_learned(*warm.learned())
    for step in (3, 4):
        train_batch(rest.client, rest.server, make_batch(step), 0.0, False)
    expected, found = straight.learned()[0], rest.learned()[0]
    assert int(expected["adversarial_adversary.batches"]) == 5
    assert any(name.startswith("adversarial_optimizer.") for name in expected)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_model_holds_nothing_of_the_adversary(make_run) -> None:
    state = make_state(make_run(defenses=(Adversarial(net=NET),)))
    assert {name.partition(".")[0] for name in state.model()} == {"encoder", "classifier"}
    optimized = {id(p) for group in state.client.optimizer.param_groups for p in group["params"]}
    assert not optimized & {id(p) for p in adversary(state).parameters()}, "the client's optimizer has no part in it"


@pytest.mark.parametrize("protocol", ["joint", "split"])
def test_its_term_is_in_the_history(make_run, protocol) -> None:
    training = Training(epochs=2, warmup_epochs=0, protocol=protocol)
    state = make_state(make_run(defenses=(Adversarial(net=NET, threshold=-1),), training=training))
    readings, _ = train_batch(state.client, state.server, make_batch(0), 0.0, False)
    assert readings["defense_penalty"] > 0
    assert readings["defense_grad_norm"] > 0
