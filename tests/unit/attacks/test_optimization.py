import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from cem.attacks import AttackError, make_attack
from cem.attacks.posterior import Explainer, MostProbable, Noise, Spectrum
from cem.attacks.search import Search, total_variation
from cem.config import Decoder, Optimization, StartingDecoder
from cem.jobs.interruption import Interrupted

from . import real

QUICK = Optimization(steps=60, tv=(0.01,), posterior=(), selection_images=8)
SMALL = StartingDecoder(net="res_normN0C8", epochs=6, batch_size=32, lr=1e-2)


@pytest.fixture(scope="module")
def encoder():
    return real.convolution()


def fitted(knowledge, cfg=QUICK, store=None, **changes):
    attack = make_attack(cfg.model_copy(update=changes), store)
    return attack, attack.fit(knowledge)


class Constant(nn.Module):
    """Says nothing of its input."""

    def forward(self, x):
        return 0 * x + 0.3


class Projection(nn.Module):
    """40 numbers, linear in the pixels."""

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(40, 256, generator=draws, dtype=torch.float64).float() / 16)

    def forward(self, x):
        return (x.flatten(1) @ self.matrix.T).reshape(len(x), 40, 1, 1)


def test_identity_without_noise_gives_real_images_back():
    knowledge = real.make_knowledge(real.small_digits(40), nn.Identity())
    attack, record = fitted(knowledge, steps=300, tv=(0.0, 0.1))
    assert record.choices["way"] == "tv 0"
    assert record.converged
    errors = (attack.reconstruct(real.seen(knowledge)) - knowledge.targets(slice(None))).square().flatten(1).mean(1)
    assert errors.max() < 1e-4  # 40 dB


def test_constant_encoder_gives_nothing_beyond_the_mean_image():
    images = real.small_digits(300)
    knowledge = real.make_knowledge(images[:200], Constant())
    test = real.make_knowledge(images[200:], Constant())
    mean_image = ((knowledge.targets(slice(None)).mean(0) - test.targets(slice(None))) ** 2).mean().item()
    for start in ("zero", "random"):
        assert real.mse(fitted(knowledge, start=start, tv=(0.0, 0.1))[0], test) > 0.99 * mean_image


def test_narrow_linear_encoder_gives_its_row_space_and_no_more():
    encoder = Projection()
    images = (64 + real.small_digits(30).float() / 2).byte()
    knowledge = real.make_knowledge(images, encoder)
    attack, _ = fitted(knowledge, steps=1500, lr=0.02, tv=(0.0,), range_weight=0.0)
    answers = attack.reconstruct(real.seen(knowledge)).flatten(1).double()
    matrix = encoder.matrix.detach().double()
    inverse = torch.linalg.pinv(matrix)
    solution = real.seen(knowledge).flatten(1).double() @ inverse.T  # the shortest image that explains z
    torch.testing.assert_close(answers @ (inverse @ matrix).T, solution, atol=5e-3, rtol=0)
    truth = knowledge.targets(slice(None)).flatten(1).double()
    assert (answers - truth).square().mean() > 0.1 * (truth - 0.5).square().mean()


def test_an_image_does_not_depend_on_its_batch(encoder):
    """In float64, to the last digits; in float32 a kink of the encoder may make much of a rounding, for few images."""
    knowledge = real.make_knowledge(real.small_digits(24), encoder, real.noise(0.05))
    z = real.seen(knowledge)
    search = Search(real.convolution().double(), steps=60, lr=0.05, range_weight=1.0, masked=False)
    grey = torch.full((24, 1, 16, 16), 0.5, dtype=torch.float64)
    *_, together = search.images(z.double(), grey, 0.01)
    *_, alone = search.images(z[3:4].double(), grey[:1], 0.01)
    torch.testing.assert_close(alone, together[3:4], atol=1e-9, rtol=0)
    attack, _ = fitted(knowledge)
    parts, _ = fitted(knowledge, batch_size=7)
    difference = (attack.reconstruct(z) - parts.reconstruct(z)).abs().flatten(1).amax(1)
    assert difference.median() < 1e-3


def test_more_observations_help(encoder):
    images = real.small_digits(40)
    errors = []
    for observations in (1, 4, 16):
        knowledge = real.make_knowledge(images, encoder, real.noise(0.2), observations)
        attack, _ = fitted(knowledge, steps=120, tv=(1e-3, 1e-2, 3e-2, 1e-1), selection_images=16)
        errors.append(real.mse(attack, knowledge))
    assert errors[0] > 1.05 * errors[1] > 1.05 * 1.05 * errors[2]


def test_what_is_hidden_does_not_count(encoder):
    def drop(z, generator):
        return z * (torch.rand(z.shape, generator=generator) >= 0.4)

    images = real.small_digits(24)
    seeing, blind = (real.make_knowledge(images, encoder, drop, masked=masked) for masked in (True, False))
    errors = [real.mse(fitted(knowledge, steps=200)[0], knowledge) for knowledge in (seeing, blind)]
    assert errors[0] < 0.8 * errors[1]


def test_hidden_pixels_of_the_identity_stay_grey_and_visible_ones_are_found():
    images = real.small_digits(10).clamp_min(1)
    knowledge = real.make_knowledge(images, nn.Identity(), lambda z, _: z * (torch.arange(16) < 8), masked=True)
    attack, _ = fitted(knowledge, steps=300, tv=(0.0,))
    answers = attack.reconstruct(real.seen(knowledge))
    torch.testing.assert_close(answers[..., :8], knowledge.targets(slice(None))[..., :8], atol=1e-2, rtol=0)
    assert (answers[..., 8:] == 0.5).all()


def test_of_several_starts_the_one_that_explains_z_best_is_kept(encoder):
    knowledge = real.make_knowledge(real.small_digits(12), encoder)
    z = real.seen(knowledge)

    def residual(attack):
        with torch.no_grad():
            return (encoder(attack.reconstruct(z)) - z).square().flatten(1).sum(1)

    several, _ = fitted(knowledge, start="random", restarts=3, steps=30)
    single, _ = fitted(knowledge, start="random", steps=30)
    alone = []
    for start in several.starts:
        single.starts, single.stop = start.unsqueeze(0), several.stop
        alone.append(residual(single))
    best = torch.stack(alone).min(0)
    assert len(set(best.indices.tolist())) > 1
    excess = (residual(several) - best.values).abs()  # roundings differ with the batch, and grow for few images
    assert excess.median() < 1e-3


def test_from_a_decoder_it_is_not_worse_than_the_decoder(encoder):
    knowledge = real.make_knowledge(real.small_digits(400), encoder, real.noise(0.02))
    test = real.make_knowledge(real.small_digits(60, start=1000), encoder, real.noise(0.02))
    alone = make_attack(Decoder(**SMALL.model_dump()))
    alone.fit(knowledge)
    changes = {"start": "decoder", "decoder": SMALL, "selection_images": 40}
    both, record = fitted(knowledge, tv=(0.0, 1e-3, 1e-2, 3e-2), **changes)
    assert record.parameters == sum(parameter.numel() for parameter in alone.net.parameters())
    assert record.choices["steps"] > 0
    assert real.mse(both, test) < 0.95 * real.mse(alone, test)
    wild, record = fitted(knowledge, lr=50.0, **changes)
    assert record.choices["steps"] == 0
    assert torch.equal(wild.reconstruct(real.seen(test)), alone.reconstruct(real.seen(test)))


def test_the_decoder_never_learns_from_the_images_that_are_selected_on(encoder):
    inner, seen = real.make_knowledge(real.small_digits(200), encoder), []

    def observe(rows, generator):
        seen.append(torch.arange(200)[rows].tolist())
        return inner.observe(rows, generator)

    knowledge = replace(inner, observe=observe)
    fitted(knowledge, start="decoder", decoder=SMALL.model_copy(update={"epochs": 1}), selection_images=12, steps=2)
    learned = {row for rows in seen if len(rows) == 32 for row in rows}
    assert len(seen[-1]) == 12
    assert len(learned) > 100
    assert not learned & set(seen[-1])


def test_callers_without_gradients_get_the_same(encoder):
    knowledge = real.make_knowledge(real.small_digits(10), encoder)
    attack, _ = fitted(knowledge)
    with torch.no_grad():
        inside = attack.reconstruct(real.seen(knowledge))
    assert torch.equal(inside, attack.reconstruct(real.seen(knowledge)))
    assert not torch.equal(inside, torch.full_like(inside, 0.5))


def test_interrupted_at_any_step_it_goes_on_to_the_same_bits(encoder):
    knowledge = real.make_knowledge(real.small_digits(100), encoder, real.noise(0.05))
    cfg = {"start": "decoder", "decoder": SMALL.model_copy(update={"epochs": 2}), "steps": 15}
    whole = real.MemoryStore(10**9)
    expected = fitted(knowledge, store=whole, **cfg)[0].reconstruct(real.seen(knowledge))
    last = 10**9 - whole.looks - 1  # how many steps reconstruct takes is chosen in fit
    for looks in (1, 3, 12, last):  # within the decoder's epochs, in the search on held-out images, in reconstruct
        store = real.MemoryStore(looks)
        with pytest.raises(Interrupted):
            fitted(knowledge, store=store, **cfg)[0].reconstruct(real.seen(knowledge))
        store.looks = math.inf
        assert torch.equal(fitted(knowledge, store=store, **cfg)[0].reconstruct(real.seen(knowledge)), expected)


def test_curve_and_verdict(encoder):
    knowledge = real.make_knowledge(real.small_digits(20), encoder)
    _, record = fitted(knowledge, steps=200)
    assert [row["epoch"] for row in record.curve] == list(range(0, 201, 10))
    assert set(record.curve[0]) == {"epoch", "val_mse", "residual", "seconds"}
    assert record.curve[-1]["residual"] < 0.1 * record.curve[0]["residual"]
    assert record.choices["held_out_mse"]["tv 0.01"] == pytest.approx(min(row["val_mse"] for row in record.curve))
    assert record.converged
    assert fitted(knowledge, steps=5, lr=0.1)[1].converged is False
    assert fitted(knowledge, steps=4)[1].converged is None


def test_an_overflow_is_a_failure_and_the_answer_is_the_start(encoder):
    knowledge = real.make_knowledge(real.small_digits(20), encoder)
    attack, record = fitted(knowledge, lr=1e38)
    assert record.failure == "8 of 8 held-out images are not finite after 60 steps: lower lr"
    assert torch.equal(attack.reconstruct(real.seen(knowledge)), torch.full((20, 1, 16, 16), 0.5))
    sound, record = fitted(knowledge)
    assert record.failure == ""
    z = real.seen(knowledge)
    z[3] = torch.nan
    answers = sound.reconstruct(z)
    assert (answers[3] == 0.5).all()
    torch.testing.assert_close(answers[:3], sound.reconstruct(real.seen(knowledge))[:3], atol=2e-3, rtol=0)


def test_what_makes_it_no_attack_is_told(encoder):
    knowledge = real.make_knowledge(real.small_digits(100), encoder)
    assert "0 steps" in fitted(knowledge, steps=0)[1].failure
    idle = SMALL.model_copy(update={"epochs": 0})
    assert "its decoder: 0 epochs" in fitted(knowledge, start="decoder", decoder=idle, steps=3)[1].failure
    with pytest.raises(AttackError, match="Set encoder: weights"):
        fitted(replace(knowledge, encoder=None))


def test_total_variation_is_the_length_of_the_gradient():
    images = torch.zeros(2, 3, 8, 8)
    images[0, :, :, 4:] = torch.tensor([0.3, 0.4, 0.0]).view(3, 1, 1)  # eight pixels at an edge of length 0.5
    flat = 64 * 1e-3  # what rounding the root leaves
    torch.testing.assert_close(total_variation(images), torch.tensor([4.0 + 56 * 1e-3, flat]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shaped", [False, True])
def test_the_most_probable_image_of_gaussian_ones_is_the_mean_given_z(shaped):
    """Without a decoder, a linear encoder: the error is the closed form's, and the noise's own variance is chosen.

    shaped: half of z has a tenth of the variance that the other half has, and the attacker is told so.
    """
    encoder = Projection()
    stds = (torch.tensor([0.09, 0.3]).repeat(20) if shaped else torch.full((40,), 0.1)).view(40, 1, 1)
    told = {"stds": stds.expand_as} if shaped else {}
    draws = torch.Generator().manual_seed(5)
    root = torch.randn(256, 12, generator=draws) * 6
    pixels = 128 + torch.randn(3000, 12, generator=draws) @ root.T + 4 * torch.randn(3000, 256, generator=draws)
    images = pixels.clamp(0, 255).round().byte().view(-1, 1, 16, 16)
    knowledge = real.make_knowledge(images[:2500], encoder, real.noise(stds), **told)
    test = real.make_knowledge(images[2500:], encoder, real.noise(stds))
    attack, record = fitted(knowledge, posterior=(0.1, 1.0, 10.0), selection_images=200)
    assert record.choices["way"] == "posterior 1"
    assert record.choices["noise_std"] == pytest.approx(stds.square().mean().sqrt().item(), rel=0.02)
    assert record.choices["noise_per_value"] == shaped
    x = (pixels / 255).double()
    covariance = x.T.cov()
    matrix = encoder.matrix.detach().double()
    seen = matrix @ covariance @ matrix.T + stds.flatten().double().square().diag()
    left = covariance - covariance @ matrix.T @ torch.linalg.solve(seen, matrix @ covariance)
    assert real.mse(attack, test) == pytest.approx(left.trace().item() / 256, rel=0.1)


@pytest.mark.parametrize("sigma", [0.0, 0.3])
def test_from_a_decoder_to_the_most_probable_image_is_closer_with_and_without_noise(encoder, sigma):
    knowledge = real.make_knowledge(real.small_digits(600), encoder, real.noise(sigma))
    test = real.make_knowledge(real.small_digits(100, start=1000), encoder, real.noise(sigma))
    alone = make_attack(Decoder(**SMALL.model_dump()))
    alone.fit(knowledge)
    changes = {"start": "decoder", "decoder": SMALL, "selection_images": 30}
    both, record = fitted(knowledge, posterior=(3.0, 30.0, 1000.0), lr=50.0, **changes)
    assert record.choices["way"].startswith("posterior")
    assert record.choices["steps"] > 0
    assert real.mse(both, test) < 0.98 * real.mse(alone, test)


def test_the_most_probable_image_of_one_does_not_depend_on_the_others():
    """In float64: in float32, the encoder's kinks make much of roundings."""
    knowledge = real.make_knowledge(real.small_digits(200), real.convolution(), real.noise(0.1))
    x, z = knowledge.targets(slice(None)).double(), real.seen(knowledge)[:30].double()
    spectrum = Spectrum.of((x - x.mean(0)).flatten(1))
    spectrum = Spectrum(*(part.double() for part in (spectrum.basis, spectrum.variances, spectrum.rest)))
    search = MostProbable(
        Explainer(real.convolution().double(), Noise(0.1, 0.1), masked=False, iterations=10), spectrum
    )
    *_, together = search.images(z, x.mean(0).expand(30, 1, 16, 16), 5)
    *_, alone = search.images(z[3:4], x.mean(0).expand(1, 1, 16, 16), 5)
    torch.testing.assert_close(alone, together[3:4], atol=1e-6, rtol=0)
