"""What a channel states of itself is so: density, entropy, and the law of the mean of several looks."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cem.defenses import Channel, GaussianNoise, LaplaceNoise, NotApplicable
from cem.defenses.shaped_noise import DiagonalNoise
from cem.defenses.vib import ScaledNoise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SHAPE = (3, 2, 1)
CLEAN = torch.rand(2000, 6, generator=generator(1))
PROFILE = torch.tensor([0.1, 0.4, 0.5, 1.0, 1.5, 2.5])
MIXED = torch.tensor([[1.0, -0.5, 0.2], [0.0, 0.8, 0.0], [-1.0, 0.3, 0.4]])  # channels of ẑ → those of log s


def log_scale(clean: torch.Tensor) -> torch.Tensor:
    return torch.einsum("oc,nchw->nohw", MIXED, clean) - 1.2


def log_sizes(clean: torch.Tensor) -> np.ndarray:
    """The same of ẑ [n, 6], by a matrix product."""
    return (MIXED.numpy() @ clean.view(-1, 3, 2).numpy() - 1.2).reshape(-1, 6).astype(np.float64)


CHANNELS = {
    "gaussian": GaussianNoise(0.3),
    "laplace": LaplaceNoise(0.3),
    "diagonal": DiagonalNoise(0.3, PROFILE.view(SHAPE)),
    "scaled": ScaledNoise(log_scale, SHAPE, torch.tensor(np.exp(2 * log_sizes(CLEAN)).mean()), 0.5),
}
EACH = pytest.mark.parametrize("name", CHANNELS)


def unit_law(name: str):
    """Of the noise in one number, in parts of its standard deviation."""
    return stats.laplace(scale=1 / math.sqrt(2)) if name == "laplace" else stats.norm()


def scales(name: str, clean: torch.Tensor) -> np.ndarray:
    """Standard deviation of the noise in each number of these ẑ [n, 6]."""
    if name == "scaled":
        return 0.5 * np.exp(log_sizes(clean))
    found = {"diagonal": 0.3 * PROFILE.double().sqrt()}.get(name, torch.tensor(0.3, dtype=torch.float64))
    return found.expand(clean.shape).numpy()


def log_density(name: str, z: torch.Tensor, clean: torch.Tensor) -> np.ndarray:
    """log p(z|ẑ) of each pair of rows, by scipy."""
    size = scales(name, clean)
    return (unit_law(name).logpdf((z - clean).numpy() / size) - np.log(size)).sum(1)


def observed(channel: Channel, clean: torch.Tensor = CLEAN, seed: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return channel.observe(clean, channel.unit(clean, generator(seed)))


@EACH
def test_the_density_is_that_of_scipy(name) -> None:
    z, found = observed(CHANNELS[name])
    assert found.numpy() == pytest.approx(log_density(name, z, CLEAN), rel=1e-5, abs=1e-4)
    pairs = CHANNELS[name].log_densities(z[:50], CLEAN[:60])
    assert pairs.shape == (50, 60)
    assert pairs[3, 7].item() == pytest.approx(log_density(name, z[3:4], CLEAN[7:8]).item(), abs=1e-6)
    assert pairs.diagonal().numpy() == pytest.approx(found[:50].numpy(), abs=1e-4)
    assert {part.dtype for part in (z, found, pairs)} == {torch.float64}


@EACH
def test_the_size_of_the_noise_in_each_number_is_told(name) -> None:
    found = CHANNELS[name].stds(CLEAN.view(-1, *SHAPE))
    assert found.shape == (2000, *SHAPE)
    assert found.flatten(1).numpy() == pytest.approx(scales(name, CLEAN), rel=1e-5)


@EACH
def test_the_entropy_is_the_mean_of_minus_the_log_density(name) -> None:
    _, found = observed(CHANNELS[name])
    entropy = CHANNELS[name].entropy(CLEAN)
    assert (entropy.shape, entropy.dtype) == ((len(CLEAN),), torch.float64)
    gap = entropy + found
    assert abs(float(gap.mean())) < 4 * float(gap.std()) / math.sqrt(len(gap))
    expected = 6 * unit_law(name).entropy() + np.log(scales(name, CLEAN)).sum(1)
    assert entropy.numpy() == pytest.approx(expected, rel=1e-6)


@EACH
def test_what_is_sent_has_the_stated_law(name) -> None:
    channel = CHANNELS[name]
    noise = (channel.send(CLEAN.view(-1, *SHAPE), generator(4)).flatten(1) - CLEAN).numpy()
    assert stats.kstest((noise / scales(name, CLEAN)).flatten(), unit_law(name).cdf).pvalue > 0.01
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
    looks = [channel.send(CLEAN.view(-1, *SHAPE), draws) for _ in range(4)]
    mean = torch.stack(looks).mean(0).flatten(1)
    parts = ((mean - CLEAN).numpy() / (scales(name, CLEAN) / 2)).flatten()
    found = channel.mean_of(4)
    if isinstance(found, NotApplicable):
        of_another_shape = stats.kstest(parts, unit_law(name).cdf).pvalue < 0.01
        assert of_another_shape or "tell more than their mean" in found.reason
        return
    assert found.noise_std == pytest.approx(channel.noise_std / 2)
    assert stats.kstest(parts, unit_law(name).cdf).pvalue > 0.01
    seen = mean[:1].double()
    expected = unit_law(name).logpdf(parts[:6]) - np.log(scales(name, CLEAN[:1]) / 2)
    assert float(found.log_densities(seen, CLEAN[:1])) == pytest.approx(expected.sum(), abs=1e-4)


def test_without_noise_nothing_is_drawn_and_the_entropy_is_least() -> None:
    draws, clean = generator(6), CLEAN.view(-1, 6, 1, 1)
    before = draws.get_state()
    assert GaussianNoise(0.0).send(clean, draws) is clean
    assert torch.equal(draws.get_state(), before)
    assert (GaussianNoise(0.0).entropy(CLEAN) == -math.inf).all()
