"""What a channel states of itself is so: density, entropy, and the law of the mean of several looks."""

import math

import pytest
import torch
from scipy import stats

from cem.defenses import Channel, GaussianNoise, LaplaceNoise, NotApplicable

CHANNELS = {"gaussian": GaussianNoise(0.3), "laplace": LaplaceNoise(0.3)}
LAWS = {
    "gaussian": stats.norm(scale=0.3),
    "laplace": stats.laplace(scale=0.3 / math.sqrt(2)),
}  # of the noise in one number
EACH = pytest.mark.parametrize("name", CHANNELS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLEAN = torch.rand(2000, 6, generator=generator(1))


def observed(channel: Channel, clean: torch.Tensor = CLEAN, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return channel.observe(clean, channel.unit(clean, generator(seed)))


@EACH
def test_the_density_is_that_of_scipy(name) -> None:
    z, log_density = observed(CHANNELS[name])
    expected = LAWS[name].logpdf((z - CLEAN).numpy()).sum(1)
    assert log_density.numpy() == pytest.approx(expected, rel=1e-5, abs=1e-4)
    pairs = CHANNELS[name].log_densities(z[:50], CLEAN[:60])
    assert pairs.shape == (50, 60)
    assert pairs[3, 7].item() == pytest.approx(LAWS[name].logpdf((z[3] - CLEAN[7]).numpy()).sum(), abs=1e-6)
    assert pairs.diagonal().numpy() == pytest.approx(log_density[:50].numpy(), abs=1e-4)


@EACH
def test_the_entropy_is_the_mean_of_minus_the_log_density(name) -> None:
    _, log_density = observed(CHANNELS[name])
    entropy = CHANNELS[name].entropy(CLEAN)
    assert entropy.shape == (len(CLEAN),)
    gap = entropy + log_density
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(len(gap))
    assert float(entropy[0]) == pytest.approx(6 * float(LAWS[name].entropy()))


@EACH
def test_what_is_sent_has_the_stated_law(name) -> None:
    channel, clean = CHANNELS[name], torch.rand(50, 8, 4, 4, generator=generator(3))
    noise = (channel.send(clean, generator(4)) - clean).flatten().numpy()
    assert stats.kstest(noise, LAWS[name].cdf).pvalue > 0.01
    assert noise.std() == pytest.approx(channel.noise_std, rel=0.03)


@EACH
def test_the_same_law_at_another_size(name) -> None:
    louder = CHANNELS[name].sized(0.9)
    assert louder.noise_std == pytest.approx(0.9)
    gap = (observed(louder)[0] - CLEAN) - 0.9 / CHANNELS[name].noise_std * (observed(CHANNELS[name])[0] - CLEAN)
    assert float(gap.abs().max()) < 1e-6  # of the same draws


@EACH
def test_the_mean_of_several_looks(name) -> None:
    channel, draws = CHANNELS[name], generator(5)
    clean = torch.zeros(50, 4, 4, 4)
    mean = torch.stack([channel.send(clean, draws) for _ in range(4)]).mean(0).flatten()
    found = channel.mean_of(4)
    if isinstance(found, NotApplicable):
        shape = stats.kstest(2 * mean.numpy(), LAWS[name].cdf).pvalue
        assert shape < 0.01, "it has no law of its own because it is of another shape"
        return
    assert found.noise_std == pytest.approx(channel.noise_std / 2)
    alone = mean.double()[:, None]
    nats = -found.log_densities(alone, torch.zeros(1, 1)).mean()
    assert float(nats) == pytest.approx(float(found.entropy(torch.zeros(1, 1))), abs=0.05)


def test_without_noise_nothing_is_drawn_and_the_entropy_is_least() -> None:
    draws, clean = generator(6), CLEAN.view(-1, 6, 1, 1)
    before = draws.get_state()
    assert GaussianNoise(0.0).send(clean, draws) is clean
    assert torch.equal(draws.get_state(), before)
    assert (GaussianNoise(0.0).entropy(CLEAN) == -math.inf).all()
