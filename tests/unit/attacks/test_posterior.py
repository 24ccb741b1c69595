"""What z adds to a guess, where that is known: Gaussian x, a linear encoder."""

import pytest
import torch

from cem.attacks.posterior import LEAST_NOISE, Explainer, Noise, Spectrum, noise_of, solve
from cem.attacks.standard import observed_spread
from cem.defenses.vib import ScaledNoise

from .real import convolution, make_knowledge, small_digits

PIXELS = 16


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(n=4000):
    root = draws(PIXELS, PIXELS, seed=1)
    images = (draws(n, PIXELS) @ root).float()
    return Spectrum.of(images), images.double().T @ images.double() / n


@pytest.mark.parametrize("time", [0.0, 0.3, 0.9])
def test_what_is_unknown_once_a_noisy_image_is_known(time):
    found, covariance = spectrum()
    known = time**2 / (1 - time) ** 2 * torch.eye(PIXELS, dtype=torch.float64)
    expected = torch.linalg.inv(torch.linalg.inv(covariance) + known)
    columns = found.unknown(torch.eye(PIXELS).view(PIXELS, 1, 4, 4), time).flatten(1).double()
    torch.testing.assert_close(columns, expected, rtol=1e-3, atol=1e-5)


def test_few_images_leave_what_they_do_not_say_to_all_other_directions_alike():
    images = draws(8, PIXELS).float()
    found = Spectrum.of(images)
    assert found.basis.shape == (PIXELS, 4)
    total = found.variances.sum() + (PIXELS - 4) * found.rest
    torch.testing.assert_close(total, images.square().sum() / 8)
    outside = draws(1, PIXELS, seed=2).float()
    outside -= outside @ found.basis @ found.basis.T
    torch.testing.assert_close(found.unknown(outside.view(1, 1, 4, 4), 0.0).flatten(1), found.rest * outside)


@pytest.mark.parametrize("shaped", [False, True])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_guess_becomes_the_posterior_mean(masked, elsewhere, shaped):
    """μ + C Aᵀ (A C Aᵀ + D)⁻¹ (z − A μ), with the rows of A that are seen. D = σ²I, or of another size in each row."""
    (found, covariance), noise_std = spectrum(), 0.5
    parts = torch.tensor([0.1, 3.0, 0.5, 2.0, 1.0, 0.2] if shaped else [1.0] * 6)
    matrix = draws(6, PIXELS, seed=3)

    def encode(images):
        return (images.flatten(1) @ matrix.T.float()).view(-1, 6, 1, 1)

    guess, z = draws(5, 1, 4, 4, seed=4).float(), draws(5, 6, 1, 1, seed=5).float()
    if masked:
        z[:, 2:4] = 0
    noise = Noise(0.0, noise_std, parts.view(6, 1, 1).expand_as if shaped else None)
    explain = Explainer(encode, noise, masked, iterations=12)
    around = draws(5, 1, 4, 4, seed=6).float() if elsewhere else guess  # a linear encoder's slope is the same there
    answer = explain(around, z, lambda change: found.unknown(change, 0.0), guess if elsewhere else None)
    rows = [0, 1, 4, 5] if masked else list(range(6))
    seen, flat = matrix[rows], guess.flatten(1).double()
    variances = (noise_std * parts[rows].double()).square().diag()
    gain = covariance @ seen.T @ torch.linalg.inv(seen @ covariance @ seen.T + variances)
    expected = flat + (z.flatten(1).double()[:, rows] - flat @ seen.T) @ gain.T
    torch.testing.assert_close(answer.flatten(1).double(), expected, rtol=1e-3, atol=1e-3)


def test_each_of_a_batch_is_solved_by_itself_and_stays_where_it_is_solved():
    matrices = draws(3, 4, 4)
    matrices = matrices @ matrices.mT + torch.eye(4)
    target = torch.stack([draws(4, seed=1), torch.zeros(4, dtype=torch.float64), draws(4, seed=2)]).view(3, 4, 1, 1)

    def times(x):
        return (matrices @ x.view(3, 4, 1)).view(3, 4, 1, 1)

    found = solve(times, target, iterations=30)
    torch.testing.assert_close(times(found), target)
    assert (found[1] == 0).all()


def log_scale(clean):
    """Of noise that is louder where ẑ is large; of [n, 4, 8, 8], in parts of 0.1."""
    return 2 * clean - 1


def louder_where_large(size=0.1):
    """A channel whose noise depends on ẑ."""
    return ScaledNoise(log_scale, (4, 8, 8), torch.tensor(1.0), size)


@pytest.mark.parametrize("observations", [1, 4])
def test_the_channel_says_how_the_noise_is_shared_out_and_the_attacker_measures_how_much_there_is(observations):
    channel, encode = louder_where_large(), convolution()
    knowledge = make_knowledge(small_digits(200), encode, channel.send, observations, stds=channel.stds)
    clean = encode(knowledge.targets(slice(None))).detach()
    found, expected = noise_of(knowledge, encode, torch.Generator()), channel.stds(clean) / observations**0.5
    assert found.measured == pytest.approx(expected.square().mean().sqrt().item(), rel=0.02)
    torch.testing.assert_close(found.std * found.parts(clean), expected, rtol=0.02, atol=0)


def test_little_noise_in_a_number_counts_as_a_hundredth_of_the_spread():
    channel, encode = louder_where_large(1e-6), convolution()
    knowledge = make_knowledge(small_digits(200), encode, channel.send, stds=channel.stds)
    found, clean = noise_of(knowledge, encode, torch.Generator()), encode(knowledge.targets(slice(None))).detach()
    least = LEAST_NOISE * observed_spread(knowledge, visible=True).by_value().scale
    torch.testing.assert_close(found.std * found.parts(clean), least.expand_as(clean))


@pytest.mark.parametrize("masked", [False, True])
def test_how_unlikely_z_is_counts_that_louder_noise_explains_more(masked):
    """−2 log p(z|x) up to a constant, of the channel itself; a hidden number has no part in it."""
    channel, encode = louder_where_large(), convolution()
    images = small_digits(20).float() / 255
    clean = encode(images).detach()
    z = channel.send(clean, torch.Generator().manual_seed(0))[:1].repeat(20, 1, 1, 1)
    if masked:
        z[:, 1:] = 0
    noise = Noise(0.1, 0.1, lambda clean: channel.stds(clean) / 0.1)
    found = Explainer(encode, noise, masked, 1).unlikeliness(images, z)
    kept = slice(1 if masked else 4)
    law = torch.distributions.Normal(clean[:, kept].double(), channel.stds(clean)[:, kept].double())
    expected = -2 * law.log_prob(z[:, kept].double()).flatten(1).sum(1)
    torch.testing.assert_close((found - found[0]).double(), expected - expected[0], rtol=1e-3, atol=1e-2)
