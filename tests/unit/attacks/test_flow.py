import math

import pytest
import torch

from cem.attacks.base import hold_out
from cem.attacks.flow import FlowAttack
from cem.attacks.flow_net import FlowNet, integrate
from cem.config import Flow
from cem.jobs.interruption import Interrupted
from cem.models.velocity import Velocity

from .interruption import fit_in_pieces, without_seconds
from .real import MemoryStore

QUICK = Flow(net="unet_C8", epochs=4, batch_size=32, lr=5e-3, samples=4, steps=4)


def fitted(knowledge, cfg=QUICK, **changes):
    attack = FlowAttack(Flow(**{**cfg.sparse(), **changes}))
    return attack, attack.fit(knowledge)


@pytest.fixture(scope="module")
def example(problem):
    """An attack under noise, what it knows, and its record."""
    knowledge = problem[2](problem[0](600), noise_std=0.3)
    return (*fitted(knowledge), knowledge)


@pytest.fixture(scope="module")
def problem():
    from .conftest import bend, make_knowledge, smooth_images

    return smooth_images, bend, make_knowledge


@pytest.mark.parametrize(("unknown", "steps", "within"), [(1.0, 4, 0.01), (0.1, 8, 0.01), (0.01, 8, 0.06)])
def test_the_path_of_a_gaussian_ends_at_its_spread(unknown, steps, within):
    """x ~ N(m, s²): v = m + (s² t − (1 − t)) / ((1 − t)² + s² t²) · (x_t − t m)."""

    def velocity(x, time):
        return 3 + (unknown * time - (1 - time)) / ((1 - time) ** 2 + unknown * time**2) * (x - 3 * time)

    first, second = integrate(velocity, torch.tensor([0.0, 1.0]).view(2, 1, 1, 1), steps).flatten().tolist()
    assert first == pytest.approx(3)
    assert (second - first) ** 2 == pytest.approx(unknown, rel=within)


class OfOneImage(Velocity):
    """Right, but for `off`, where all images are one: standardised it is 0, ε = x_t / (1 − t), and v = −ε."""

    def __init__(self, off):
        super().__init__(4, 1, 8, 2, 0)
        self.off = off

    def forward(self, x, time, features=None):
        return self.off - x / (1 - time).view(-1, 1, 1, 1)


@pytest.mark.parametrize("off", [0.0, 1.0])
def test_the_loss_is_what_the_velocity_is_off_by(off):
    images = torch.full((64, 1, 8, 8), 0.4)
    net = FlowNet(OfOneImage(off), None, images[0], torch.tensor(2.0), 1, 1, lambda name: torch.Generator())
    loss, image_error = net.loss(images, None, torch.Generator().manual_seed(0))
    assert loss == pytest.approx(off, abs=1e-6, rel=1e-3)
    assert image_error == pytest.approx(2**2 * off / 3, abs=1e-6, rel=0.02)  # scale² times the mean of (1 − t)²


def test_an_answer_is_a_function_of_z_alone(example):
    attack, _, knowledge = example
    z = knowledge.observe(slice(0, 7), torch.Generator().manual_seed(1))
    whole = attack.reconstruct(z)
    assert torch.equal(whole, attack.reconstruct(z))
    assert torch.equal(attack.net.noise(z, 3)[5], attack.net.noise(z[5:6], 3)[0])
    torch.testing.assert_close(whole[5:6], attack.reconstruct(z[5:6]))
    torch.testing.assert_close(whole.flip(0), attack.reconstruct(z.flip(0)))
    assert not torch.equal(*attack.net.noise(z[:2], 1))


def test_more_samples_leave_less_error_down_to_that_of_the_mean(example):
    """Of independent samples with the right spread, a single one has twice the error of their mean."""
    attack, _, knowledge = example
    rows = slice(0, 100)
    samples = attack.sample(knowledge.observe(rows, torch.Generator().manual_seed(1)), 32)
    target = knowledge.targets(rows)
    one, few, many = ((samples[:, :n].mean(1) - target).square().mean().item() for n in (1, 4, 32))
    spread = samples.var(1).mean().item()
    assert one == pytest.approx(many + spread * (1 - 1 / 32), rel=0.05)
    assert few == pytest.approx(many + spread * (1 / 4 - 1 / 32), rel=0.05)
    assert one > 1.4 * many


@pytest.mark.parametrize("samples", [1, 4, 16])
def test_the_held_out_error_is_that_of_the_answers(problem, samples):
    """Though it takes two samples: against the error of answers to the same z, under other noise."""
    knowledge = problem[2](problem[0](400), noise_std=0.3)
    attack, record = fitted(knowledge, epochs=2, samples=samples, selection_images=1000, held_out=0.4)
    held = hold_out(400, 0.4, knowledge.generator("0/split", "cpu"))[1]
    z = knowledge.observe(held, knowledge.generator("0/validation"))
    drawn, attack.net.draws = attack.net.draws, lambda name: drawn(f"other {name}")
    error = (attack.reconstruct(z) - knowledge.targets(held)).square().mean().item()
    assert min(row["val_mse"] for row in record.curve) == pytest.approx(error, rel=0.05)


def test_it_beats_the_mean_image_where_z_is_bent(example, problem):
    attack, record, _ = example
    target = problem[0](100, seed=1)
    z = problem[1](target)
    error = (attack.reconstruct(z) - target.float() / 255).square().mean()
    assert error < 0.5 * (attack.mean - target.float() / 255).square().mean()
    assert not record.failure
    assert set(record.curve[0]) == {"epoch", "train_mse", "val_mse", "train_loss", "lr", "seconds"}
    assert record.parameters == sum(parameter.numel() for parameter in attack.net.parameters())


def test_in_pieces_it_is_the_same(example):
    whole, expected, knowledge = example
    attack, record, attempts = fit_in_pieces(lambda store: FlowAttack(QUICK, store), knowledge, MemoryStore(), 7)
    assert attempts > 5
    attack.store = MemoryStore()
    assert without_seconds(record.curve) == without_seconds(expected.curve)
    z = knowledge.observe(slice(0, 5), torch.Generator().manual_seed(1))
    assert torch.equal(attack.reconstruct(z), whole.reconstruct(z))


def test_a_request_to_stop_is_heard_while_it_samples(example):
    attack, _, knowledge = example
    z = knowledge.observe(slice(0, 5), torch.Generator().manual_seed(1))
    attack.store = MemoryStore(3)
    with pytest.raises(Interrupted):
        attack.reconstruct(z)
    attack.store = MemoryStore(math.inf)
    assert attack.reconstruct(z).shape == (5, 1, 16, 16)


def test_a_decoder_without_a_u_is_refused():
    with pytest.raises(ValueError, match="expected unet_C<channels>"):
        Flow(net="res_normN4C32")
