"""Neither a large offset nor a small amplitude of z hides anything from an attacker who subtracts and divides."""

from dataclasses import replace

import pytest
import torch
from torch.nn import Conv2d
from torch.nn.functional import avg_pool2d

from cem.attacks import Knowledge, make_attack
from cem.attacks.standard import observed_spread
from cem.config import Decoder, Gan, Linear, Nearest, Optimization
from cem.models import critic

SMALL = {"net": "res_normN0C8", "batch_size": 50, "lr": 1e-2}
ATTACKS = [Linear(), Nearest(), Decoder(**SMALL, epochs=3), Gan(**SMALL, epochs=2, critic_steps=2)]


def features(images):
    """[n, 1, 16, 16] → [n, 16, 4, 4]: more numbers than an image is made of, so many directions hardly vary."""
    mixing = torch.randn(64, 256, generator=torch.Generator().manual_seed(0)) / 8
    pooled = avg_pool2d(images.float() / 255, 2).flatten(1)
    return (pooled @ mixing).tanh().reshape(len(images), 16, 4, 4)


def error(cfg, encode, problem, test):
    smooth_images, _, make_knowledge = problem
    attack = make_attack(cfg)
    attack.fit(make_knowledge(smooth_images(300), encode))
    return (attack.reconstruct(encode(test)) - test.float() / 255).square().mean().item()


@pytest.mark.parametrize(("scale", "offset"), [(1e-4, 0.9), (1e-30, 0.0), (1e3, 1e7)])
@pytest.mark.parametrize("cfg", ATTACKS, ids=lambda cfg: cfg.id)
def test_scale_and_offset_of_z_do_not_change_the_error(cfg, scale, offset, problem, monkeypatch):
    monkeypatch.setattr(critic, "WIDTHS", (4, 8, 16))
    test = problem[0](200, seed=1)
    plain = error(cfg, features, problem, test)
    moved = error(cfg, lambda images: offset + scale * features(images), problem, test)
    assert moved == pytest.approx(plain, rel=0.1)


def test_a_small_encoder_is_searched_through_like_a_large_one(images):
    test, found = images[:40], []
    for scale in (1.0, 1e-5):
        torch.manual_seed(0)
        encoder = Conv2d(1, 8, 4, stride=2).requires_grad_(False)
        encoder.weight *= scale
        encoder.bias *= scale
        clean = encoder(images.float() / 255)
        knowledge = Knowledge(images, None, lambda rows, _, z=clean: z[rows], 0, torch.device("cpu"), encoder=encoder)
        attack = make_attack(Optimization(steps=60, tv=(0.0, 0.01), selection_images=20))
        attack.fit(knowledge)
        found.append((attack.reconstruct(clean[:40]) - test.float() / 255).square().mean().item())
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_the_spread_is_that_of_the_observations_without_the_hidden(images):
    draws = torch.Generator().manual_seed(0)
    z = 5 + torch.tensor([1.0, 0.1]).view(1, 2, 1, 1) * torch.randn(300, 2, 3, 3, generator=draws)
    hidden = torch.rand(z.shape, generator=draws) < 0.3
    sent = torch.where(hidden, 0.0, z)
    knowledge = Knowledge(images, None, lambda rows, _: sent[rows], 0, torch.device("cpu"), masked=True)
    standard = observed_spread(knowledge, visible=True).by_channel()
    for channel in (0, 1):
        seen = z[:, channel][~hidden[:, channel]].double()
        torch.testing.assert_close(standard.centre[channel], torch.full((3, 3), seen.mean()).float())
        assert standard.scale[channel].item() == pytest.approx(seen.std(correction=0).item(), rel=1e-6)
    plain = observed_spread(knowledge, visible=False).by_value()
    torch.testing.assert_close(plain.centre, sent.mean(0))
    torch.testing.assert_close(plain.scale, sent.var(0, correction=0).mean().sqrt())


@pytest.mark.parametrize("value", [0.0, 0.3, -1e6])
def test_what_does_not_vary_is_divided_by_one(value, images):
    sent = torch.full((300, 2, 3, 3), value)
    knowledge = Knowledge(images, None, lambda rows, _: sent[rows], 0, torch.device("cpu"))
    for masked in (False, True):
        spread = observed_spread(replace(knowledge, masked=masked), visible=True)
        assert spread.by_value().scale == 1
        assert (spread.by_channel().scale == 1).all()
        assert (spread.by_channel()(sent) == 0).all()


@pytest.mark.parametrize("cfg", ATTACKS, ids=lambda cfg: cfg.id)
def test_a_pattern_over_the_places_hides_nothing(cfg, problem, monkeypatch):
    """Offsets such as of learned positions, ten times as large as what varies about them."""
    monkeypatch.setattr(critic, "WIDTHS", (4, 8, 16))
    test = problem[0](200, seed=1)
    pattern = 10 * torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(3))
    plain = error(cfg, features, problem, test)
    assert error(cfg, lambda images: pattern + features(images), problem, test) == pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize(("amplitude", "left"), [(0.5, 0.5), (20.0, 1.0)])
def test_a_pattern_is_made_as_small_as_what_varies_about_it(images, amplitude, left):
    """left: its standard deviation after that, beside 1 of what varies. A small one stays: it tells places apart."""
    draws = torch.Generator().manual_seed(0)
    pattern = torch.randn(1, 1, 8, 8, generator=draws)
    pattern = 3 + amplitude * (pattern - pattern.mean()) / pattern.std(correction=0)
    varying = torch.randn(300, 1, 8, 8, generator=draws)
    varying = (varying - varying.mean(0)) / varying.std(0, correction=0)
    sent = pattern + varying
    knowledge = Knowledge(images, None, lambda rows, _: sent[rows], 0, torch.device("cpu"))
    z = observed_spread(knowledge, visible=True).by_channel()(sent)
    assert z.mean().item() == pytest.approx(0, abs=1e-5)
    assert z.std(correction=0).item() == pytest.approx(1, rel=1e-4)
    assert (z.mean(0).std(correction=0) / z.std(0, correction=0).mean()).item() == pytest.approx(left, rel=1e-3)
