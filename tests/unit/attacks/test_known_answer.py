"""Attacks where the best possible answer is known: Gaussian images, a linear encoder, Gaussian noise.

A patch of 2×2 pixels is x ~ N(½, Σ) and the client sends z = A x + ε, ε ~ N(0, σ²I): one patch a position of z. Of
all reconstructions E[x|z] has the smallest mean squared error, tr(Σ_{x|z}) / 4 with Σ_{x|z} = (Σ⁻¹ + AᵀA/σ²)⁻¹, and no
attack on fresh draws can be below it. Theorem 1 (arXiv 2503.00383) bounds it from below by exp(2 H(x|z)/d) / 2πe, which
here is the geometric mean of Σ_{x|z}'s eigenvalues where the error is their arithmetic mean.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from cem.attacks import Knowledge, make_attack
from cem.config import Decoder, Flow, Linear, MeanImage, PriorSearch
from cem.metrics import mse
from cem.mixture import fit_mixture

SIDE, PIXELS, STD = 8, 4, 0.1  # of an image, of a patch; standard deviation of a pixel
PATCHES = (SIDE // 2) ** 2
ROUNDING = 1 / (12 * 255**2)  # variance that storing pixels as bytes adds: 1.3e-6
NOISE = [0.05, 0.1, 0.2]
FIT, SCORED = 8000, 4000
DECODER = Decoder(net="res_normN0C16", epochs=6, batch_size=128, lr=1e-2, weight_decay=0)
FLOW = {"net": "unet_C8", "epochs": 6, "batch_size": 128, "lr": 5e-3, "selection_images": 32, "steps": 8}
SAMPLES, SAMPLED = 100, 50  # samples an image, images
HADAMARD = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64) / 2
DISTANCE = torch.tensor([[0.0, 1, 1, 2], [1, 0, 2, 1], [1, 2, 0, 1], [2, 1, 1, 0]], dtype=torch.float64)


@dataclass(frozen=True)
class Channel:
    """What becomes of a patch: its covariance Σ, the encoder's A."""

    covariance: torch.Tensor
    encoder: torch.Tensor

    def images(self, n, seed):
        """uint8 [n, 1, 8, 8], as data sets hold them."""
        root = torch.linalg.cholesky(self.covariance).float()
        draws = torch.randn(n, PATCHES, PIXELS, generator=torch.Generator().manual_seed(seed))
        return unpatched((255 * (0.5 + draws @ root.T)).round().clamp(0, 255).byte())

    def encode(self, images):
        """[n, channel, 4, 4]: the clean ẑ."""
        z = patches(images.float() / 255) @ self.encoder.float().T
        return z.mT.unflatten(-1, (SIDE // 2, SIDE // 2))

    def posterior(self, noise_std):
        """Σ_{x|z}, and the weight W of E[x|z] = ½ + W (z − E z)."""
        prior = self.covariance + ROUNDING * torch.eye(PIXELS, dtype=torch.float64)
        noise = noise_std**2 * torch.eye(len(self.encoder), dtype=torch.float64)
        weight = prior @ self.encoder.T @ torch.linalg.inv(self.encoder @ prior @ self.encoder.T + noise)
        return prior - weight @ self.encoder @ prior, weight

    def least_mse(self, noise_std):
        return float(self.posterior(noise_std)[0].trace()) / PIXELS

    def best(self, z, noise_std):
        """E[x|z]."""
        centred = z.flatten(2).mT.double() - 0.5 * self.encoder.sum(1)
        return unpatched(0.5 + centred @ self.posterior(noise_std)[1].T).float().clamp(0, 1)

    def information(self, noise_std):
        """I(x; z) of an image, in nats."""
        signal = self.encoder @ self.covariance @ self.encoder.T / noise_std**2
        return 0.5 * PATCHES * float(torch.logdet(signal + torch.eye(len(signal), dtype=torch.float64)))

    def theorem_1(self, information):
        """Least error of any attack that has so many nats about an image."""
        entropy = 0.5 * PATCHES * float(torch.logdet(2 * math.pi * math.e * self.covariance))
        return math.exp(2 * (entropy - information) / SIDE**2) / (2 * math.pi * math.e)


WHITE = STD**2 * torch.eye(PIXELS, dtype=torch.float64)


class LinearEncoder(nn.Module):
    """The encoder of a channel, for those who hold it."""

    def __init__(self, channel):
        super().__init__()
        self.channel = channel

    def forward(self, images):
        return self.channel.encode(255 * images)


CHANNELS = {
    "orthogonal": Channel(WHITE, HADAMARD),  # AᵀA = I
    "dropped": Channel(WHITE, HADAMARD[:2]),  # half of the directions never leave the client
    "general": Channel(
        STD**2 * 0.8**DISTANCE,
        torch.tensor([[1.0, 0.5, 0, 0.2], [-0.3, 0.8, 0.4, 0], [0.1, 0, 0.6, -0.7]], dtype=torch.float64),
    ),
}
TIGHT = {"orthogonal": 0.95, "dropped": 0.7, "general": 0.45}  # parts of the smallest error that Theorem 1 guarantees
EVERYWHERE = pytest.mark.parametrize("name", CHANNELS)


def patches(images):
    """[n, 1, 8, 8] → [n, patch, pixel]."""
    half = SIDE // 2
    return images.reshape(-1, half, 2, half, 2).transpose(2, 3).reshape(-1, PATCHES, PIXELS)


def unpatched(values):
    half = SIDE // 2
    return values.reshape(-1, half, half, 2, 2).transpose(2, 3).reshape(-1, 1, SIDE, SIDE)


def observer(clean, noise_std, observations=1):
    """What the client sends, the mean of so many times."""

    def observe(rows, generator):
        z = clean[rows]
        noise = [torch.randn(z.shape, generator=generator) for _ in range(observations)]
        return z + noise_std * torch.stack(noise).mean(0)

    return observe


def attacked(cfg, channel, noise_std, n=FIT, observations=1, seed=0):
    """Errors of the scored images under an attack that was fitted to others, and under the best there is."""
    images, scored = channel.images(n, seed + 1), channel.images(SCORED, 0)
    observe = observer(channel.encode(images), noise_std, observations)
    attack = make_attack(cfg)
    attack.fit(Knowledge(images, None, observe, seed, torch.device("cpu")))
    z = observer(channel.encode(scored), noise_std, observations)(slice(None), torch.Generator().manual_seed(99))
    target = scored.float() / 255
    best = channel.best(z, noise_std / math.sqrt(observations))
    return mse(attack.reconstruct(z), target), mse(best, target)


def mean_and_spread(values):
    """Mean, and three of its standard errors."""
    return values.mean().item(), 3 * values.std().item() / math.sqrt(len(values))


def assert_near_the_best(errors, best, channel, noise_std, within):
    least = channel.least_mse(noise_std)
    found, chance = mean_and_spread(errors)
    assert found < (1 + within) * least
    assert found > channel.theorem_1(channel.information(noise_std)) - chance
    # Paired, image by image: both see the same z, so that what is left to chance is small.
    difference, spread = mean_and_spread(errors.double() - best.double())
    assert difference > -spread, f"below what is possible: {found} < {least}"


def test_an_answer_that_knew_too_much_would_be_seen():
    """It sees each z again, under noise of its own that is 3 % less."""
    channel, noise_std = CHANNELS["general"], 0.1
    _, best = attacked(MeanImage(), channel, noise_std)
    _, too_good = attacked(MeanImage(), channel, 0.97 * noise_std)
    with pytest.raises(AssertionError, match="below what is possible"):
        assert_near_the_best(too_good, best, channel, noise_std, within=0.03)


@EVERYWHERE
@pytest.mark.parametrize("noise_std", NOISE)
def test_the_closed_form_is_what_the_best_answer_reaches(name, noise_std):
    channel = CHANNELS[name]
    errors, best = attacked(MeanImage(), channel, noise_std)
    found, spread = mean_and_spread(best)
    assert abs(found - channel.least_mse(noise_std)) < spread
    prior, spread = mean_and_spread(errors)
    assert abs(prior - STD**2) < spread + STD**2 / FIT  # the mean image of so many is itself off by as much
    assert found < prior


@EVERYWHERE
@pytest.mark.parametrize("noise_std", NOISE)
def test_linear_reaches_the_least_error(name, noise_std):
    channel = CHANNELS[name]
    errors, best = attacked(Linear(), channel, noise_std)
    assert_near_the_best(errors, best, channel, noise_std, within=0.03)


@pytest.mark.parametrize("name", ["orthogonal", "general"])
@pytest.mark.parametrize("noise_std", NOISE)
def test_decoder_reaches_the_least_error(name, noise_std):
    channel = CHANNELS[name]
    errors, best = attacked(DECODER, channel, noise_std)
    assert_near_the_best(errors, best, channel, noise_std, within=0.1)


@EVERYWHERE
@pytest.mark.parametrize("noise_std", NOISE)
def test_theorem_1_is_below_the_least_error(name, noise_std):
    """With I(x; z) in closed form, and as measured: by a mixture of one component, an upper bound on it."""
    channel = CHANNELS[name]
    clean = channel.encode(channel.images(FIT, 1)).flatten(1)
    labels = torch.zeros(FIT, dtype=torch.int64)
    mixture = fit_mixture(clean, labels, components=1, generator=torch.Generator().manual_seed(0))
    exact, least = channel.information(noise_std), channel.least_mse(noise_std)
    parts = [channel.theorem_1(information) / least for information in (exact, mixture.leakage_bound(noise_std))]
    print(f"{name}, σ = {noise_std}: Theorem 1 is at {parts[0]:.1%} of the least error, {parts[1]:.1%} as measured")
    assert parts[1] <= parts[0] * 1.01  # the fitted variances are off by chance
    assert parts[0] <= 1
    assert min(parts) > TIGHT[name]


@pytest.mark.parametrize("name", ["orthogonal", "general"])
def test_more_noise_fewer_observations_and_fewer_data_never_help(name):
    """Each ladder from the strongest attacker to the weakest, three seeds each."""
    channel = CHANNELS[name]
    ladders = {
        "noise": [{"noise_std": noise_std} for noise_std in NOISE],
        "observations": [{"noise_std": 0.2, "observations": times} for times in (8, 4, 2, 1)],
        "data": [{"noise_std": 0.1, "n": n} for n in (4000, 1000, 300, 100)],
    }
    for what, ladder in ladders.items():
        found = [[attacked(Linear(), channel, **step, seed=seed)[0].mean() for seed in (10, 20, 30)] for step in ladder]
        means, spreads = torch.tensor(found).mean(1), torch.tensor(found).std(1)
        assert (means[1:] > means[:-1] - 2 * spreads[:-1].maximum(spreads[1:])).all(), what


@pytest.mark.parametrize("observations", [2, 8])
def test_observations_are_worth_as_much_as_less_noise(observations):
    channel, noise_std = CHANNELS["general"], 0.2
    errors, best = attacked(Linear(), channel, noise_std, observations=observations)
    assert_near_the_best(errors, best, channel, noise_std / math.sqrt(observations), within=0.03)


@pytest.mark.parametrize("name", ["orthogonal", "general"])
@pytest.mark.parametrize("cfg", [Flow(**FLOW), PriorSearch(**FLOW | {"epochs": 4})], ids=lambda cfg: cfg.id)
def test_samples_have_the_mean_and_the_covariance_of_the_posterior(cfg, name):
    """The mean of 100 samples is within 5 % of the least error, their covariance within 10 %."""
    channel, noise_std = CHANNELS[name], 0.1
    images, scored = channel.images(FIT, 1), channel.images(SAMPLED, 0)
    observe, attack = observer(channel.encode(images), noise_std), make_attack(cfg)
    attack.fit(Knowledge(images, None, observe, 0, torch.device("cpu"), encoder=LinearEncoder(channel)))
    z = observer(channel.encode(scored), noise_std)(slice(None), torch.Generator().manual_seed(99))
    with torch.no_grad():
        samples = attack.sample(z, SAMPLES)
    mean, best, target = samples.mean(1), channel.best(z, noise_std), scored.float() / 255
    least, (expected, _) = channel.least_mse(noise_std), channel.posterior(noise_std)
    deviations = patches((samples - mean.unsqueeze(1)).flatten(0, 1)).reshape(-1, PIXELS).double()
    found = deviations.T @ deviations / (len(deviations) * (1 - 1 / SAMPLES))
    off = float(torch.linalg.matrix_norm(found - expected) / torch.linalg.matrix_norm(expected))
    excess = float((mean - best).square().mean()) / least
    print(f"{cfg.id}, {name}: error {1 + excess:.3f} of the least, covariance off by {off:.1%}")
    assert mse(mean, target).mean() < 1.05 * mse(best, target).mean()
    assert excess < 0.05
    assert off < 0.1
