import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cem.attacks.decoder import DecoderAttack
from cem.attacks.gan import GanAttack, gradient_penalty
from cem.config import Decoder, Gan, StartingDecoder
from cem.models import critic as critics
from cem.models import parameter_count

from .interruption import fit_in_pieces, without_seconds
from .real import MemoryStore

QUICK = Gan(net="res_normN0C4", epochs=3, batch_size=64, critic_steps=3, lr=1e-2)
START = StartingDecoder(net="res_normN0C4", epochs=2, batch_size=64, lr=1e-2)


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """A critic of a hundredth of the published one's cost."""
    monkeypatch.setattr(critics, "WIDTHS", (4, 8, 16))


def fitted(knowledge, cfg=QUICK, **changes):
    attack = GanAttack(Gan(**{**cfg.sparse(), **changes}))
    return attack, attack.fit(knowledge)


def weights(attack):
    return torch.cat([tensor.reshape(-1).double() for tensor in attack.net.state_dict().values()])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_gradient_penalty_of_a_linear_critic(norm):
    direction = torch.randn(1, 3 * 8 * 8, generator=generator())
    direction *= norm / direction.norm()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 1)).requires_grad_()
    linear[1].weight.data = direction
    real, fake = torch.rand(2, 5, 3, 8, 8, generator=generator(1)).unbind()
    penalty = gradient_penalty(linear, real, fake, generator(2))
    torch.testing.assert_close(penalty, torch.tensor((norm - 1) ** 2))
    penalty.backward()
    expected = 2 * (norm - 1) * direction / norm if norm else torch.zeros_like(direction)
    torch.testing.assert_close(linear[1].weight.grad, expected)


def test_gradient_penalty_is_taken_between_the_images():
    """Of ½‖x‖², whose gradient is x: at shares s of real images 2 and fake images 0 it is 2s a pixel."""
    seen = []

    def critic(images):
        seen.append(images.detach().flatten(1))
        return images.square().flatten(1).sum(1) / 2

    real = torch.full((64, 1, 2, 2), 2.0)
    penalty = gradient_penalty(critic, real, torch.zeros_like(real), generator())
    (points,) = seen
    torch.testing.assert_close(penalty, (points.norm(dim=1) - 1).square().mean())
    assert points.min() >= 0
    assert points.max() <= 2
    assert (points.std(1) < 1e-6).all()  # one share an image
    assert len(points[:, 0].unique()) == 64


@pytest.mark.parametrize(("channels", "side"), [(1, 16), (3, 32), (1, 9), (3, 27)])
def test_critic_scores_each_image_alone(channels, side):
    critic = critics.make_critic((channels, side, side), generator())
    images = torch.rand(4, channels, side, side, generator=generator(1))
    assert critic(images).shape == (4,)
    torch.testing.assert_close(critic(images)[:1], critic(images[:1]))
    assert (critic(images) - critic(images / 2)).abs().min() > 0  # contrast is seen


def test_critic_of_the_published_widths(monkeypatch):
    monkeypatch.undo()
    layers = 3 * 64 * 25 + 64 + 64 * 128 * 25 + 128 + 128 * 256 * 25 + 256
    assert parameter_count(critics.make_critic((3, 32, 32), generator())) == layers + 256 * 4 * 4 + 1


def test_critic_refuses_images_too_small_for_it():
    with pytest.raises(critics.DecoderError, match="sides of at least 9 pixels"):
        critics.make_critic((1, 8, 8), generator())


def test_second_derivatives_repeat_themselves():
    def gradients():
        critic = critics.make_critic((1, 16, 16), generator())
        real, fake = torch.rand(2, 8, 1, 16, 16, generator=generator(1)).unbind()
        gradient_penalty(critic, real, fake, generator(2)).backward()
        return torch.cat([parameter.grad.flatten() for parameter in critic.parameters() if parameter.grad is not None])

    first = gradients()
    assert first.abs().max() > 0
    assert torch.equal(first, gradients())


@pytest.mark.parametrize(
    "changes", [{"epochs": 10}, {"epochs": 3, "start": "decoder", "decoder": START.sparse() | {"net": "res_normN0C8"}}]
)
def test_gan_comes_within_15_percent_of_the_decoder(knowledge, problem, changes):
    smooth_images, bend, _ = problem
    test = smooth_images(100, seed=1)
    decoder = DecoderAttack(Decoder(net="res_normN0C8", epochs=6, batch_size=32, lr=1e-2))
    decoder.fit(knowledge)
    gan, record = fitted(knowledge, net="res_normN0C8", batch_size=32, critic_steps=1, **changes)
    errors = [(attack.reconstruct(bend(test)) - test.float() / 255).square().mean().item() for attack in (decoder, gan)]
    assert errors[1] < 1.15 * errors[0]
    assert record.choices["epoch"] > 0  # by the GAN's own steps


def test_curve_choices_and_parameters(knowledge):
    attack, record = fitted(knowledge)
    assert list(record.curve[0]) == ["epoch", "train_mse", "val_mse", "critic", "lr", "seconds"]
    assert [row["epoch"] for row in record.curve] == [1, 2, 3]
    assert {row["lr"] for row in record.curve} == {1e-2}
    vals = [row["val_mse"] for row in record.curve]
    assert record.choices == {"epoch": vals.index(min(vals)) + 1, "lr": 1e-2}
    critic = critics.make_critic((1, 16, 16), generator())
    assert record.parameters == parameter_count(attack.net) + parameter_count(critic)


def test_the_critic_learns_to_tell_images_apart(knowledge):
    """While the generator stands still."""
    curve = fitted(knowledge, epochs=8, critic_steps=1000)[1].curve
    assert len({row["train_mse"] for row in curve[:2]}) == 2  # batches differ, weights do not
    assert curve[-1]["critic"] > max(0, 2 * curve[0]["critic"])


def test_the_generator_moves_with_every_nth_batch_of_the_whole_fit(knowledge, monkeypatch):
    moved = []
    monkeypatch.setattr("cem.attacks.gan._Game._move_generator", lambda game, *_: moved.append(game.state.step))
    fitted(knowledge)  # four batches an epoch
    assert moved == [2, 1, 0, 3]


@pytest.mark.parametrize("batches", [1, 5])
def test_a_fit_resumes_in_the_middle_with_the_same_bits(problem, images, batches):
    """Of a GAN with its decoder before it: two epochs of four batches, then three."""
    noisy = problem[2](images, noise_std=0.1)
    cfg = Gan(**{**QUICK.sparse(), "start": "decoder", "decoder": START.sparse()})
    whole, record = fitted(noisy, cfg)
    attack, pieces, attempts = fit_in_pieces(lambda store: GanAttack(cfg, store), noisy, MemoryStore(), batches)
    assert attempts >= 20 // (batches + 1)
    assert torch.equal(weights(attack), weights(whole))
    assert without_seconds(pieces.curve) == without_seconds(record.curve)
    assert pieces.choices == record.choices


def test_a_decoder_to_start_from_is_kept_unless_an_epoch_is_better(knowledge, images, problem):
    alone = DecoderAttack(START)
    alone.fit(knowledge)
    attack, record = fitted(knowledge, lr=1e-9, start="decoder", decoder=START.sparse(), epochs=1)
    assert record.choices["decoder"] == {"epoch": 2, "lr": 1e-2}
    ruined, worse = fitted(knowledge, lr=1.0, critic_steps=1, start="decoder", decoder=START.sparse(), epochs=1)
    assert worse.choices["epoch"] == 0
    assert torch.equal(weights(ruined), weights(alone))
    assert worse.converged is None  # as the decoder's two epochs, which are what is kept
    longer = {**START.sparse(), "epochs": 6, "lr": 1e-3}
    kept = fitted(knowledge, lr=1.0, critic_steps=1, start="decoder", decoder=longer, epochs=1)[1]
    assert kept.choices["epoch"] == 0
    assert kept.converged is True  # the decoder's; one epoch of the GAN's own would say nothing
    assert attack.weights().facts == ruined.weights().facts
    assert attack.weights().facts.smashed_shape == alone.weights().facts.smashed_shape
    z = problem[1](images)
    assert (attack.reconstruct(z) - alone.reconstruct(z)).abs().max() < 0.2


def test_divergence_and_no_epochs_are_failures_with_finite_images(knowledge, images, problem):
    for changes, failure in (({"critic_lr": 1e30}, "nan in epoch 1: lower lr"),
                             ({"epochs": 0}, "0 epochs: nothing was fitted"),
                             ({"start": "decoder", "decoder": {**START.sparse(), "epochs": 0}},
                              "its decoder: 0 epochs: nothing was fitted")):  # fmt: skip
        attack, record = fitted(knowledge, **changes)
        assert record.failure.endswith(failure)
        assert not record.converged
        answers = attack.reconstruct(problem[1](images))
        assert ((answers >= 0) & (answers <= 1)).all()


def test_masks_are_seen(knowledge):
    attack, record = fitted(replace(knowledge, masked=True), epochs=1)
    assert attack.net.inner.layers[0].body[0].num_features == 4
    assert math.isfinite(record.curve[0]["critic"])
    assert attack.reconstruct(torch.zeros(2, 2, 4, 4)).shape == (2, 1, 16, 16)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"held_out": 0.2}, {"net": "res_normN0C8"}])
def test_a_decoder_fitted_on_images_that_select_the_gan_is_refused(changes):
    with pytest.raises(ValueError, match=f"decoder.{next(iter(changes))} must be the GAN's"):
        Gan(**{**QUICK.sparse(), **changes}, start="decoder", decoder=START)
