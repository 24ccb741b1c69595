"""Local differential privacy: the scale of the noise, and what its ε is an ε for."""

import math

import pytest
import torch
from pydantic import ValidationError

from cem.config import Dropout, LocalDp, TopK
from cem.defenses import GaussianNoise, LaplaceNoise, make_defense

CLEAN = torch.rand(40, 8, 4, 4, generator=torch.Generator().manual_seed(1)) + 0.1
NORMS = {"gaussian": 2, "laplace": 1}


def sent(cfg: LocalDp, clean: torch.Tensor, noise_std: float = 0.0) -> torch.Tensor:
    return make_defense(noise_std, [cfg]).corrupt(clean, torch.Generator().manual_seed(2))


def test_the_published_scales() -> None:
    assert LocalDp(epsilon=2).scale == pytest.approx(math.sqrt(2 * math.log(1.25e4)) / 2)
    assert LocalDp(epsilon=2, mechanism="laplace").scale == 0.5
    still = torch.zeros(100, 8, 8, 8)
    assert float(sent(LocalDp(epsilon=2), still).std()) == pytest.approx(LocalDp(epsilon=2).scale, rel=0.02)
    laplace = sent(LocalDp(epsilon=2, mechanism="laplace"), still)
    assert float(laplace.abs().mean()) == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("mechanism", NORMS)
def test_epsilon_recomputes_from_scale_and_clip(mechanism) -> None:
    """The largest log ratio of two images' densities (Laplace), and the tail that δ allows (Gaussian)."""
    cfg = LocalDp(mechanism=mechanism, epsilon=0.8, delta=1e-3 if mechanism == "gaussian" else 1e-4, clip=0.7)
    one, other = torch.zeros(2, 1, 6, 1, 1)
    one[0, 0], other[0, 0] = 5.0, -5.0  # far beyond the clip
    defense = make_defense(0.0, [cfg])
    ends = [defense.prepare(z).flatten(1) for z in (one, other)]
    assert float((ends[0] - ends[1]).norm(NORMS[mechanism])) == pytest.approx(1.4)
    z = defense.corrupt(one.expand(200_000, -1, -1, -1), torch.Generator().manual_seed(3)).flatten(1)
    ratio = defense.channel.log_densities(z, ends[0]) - defense.channel.log_densities(z, ends[1])
    if mechanism == "laplace":
        assert float(ratio.max()) == pytest.approx(0.8, rel=1e-5)
    else:
        assert float((ratio > 0.8).double().mean()) < 1e-3
        assert float((ratio > 0.4).double().mean()) > 1e-3


@pytest.mark.parametrize("mechanism", NORMS)
def test_the_clip_shortens_what_is_longer_and_nothing_else(mechanism) -> None:
    cfg = LocalDp(mechanism=mechanism, clip=3.0)
    scaled = CLEAN * torch.linspace(0.001, 2, len(CLEAN)).view(-1, 1, 1, 1)
    prepared = make_defense(0.0, [cfg]).prepare(scaled)
    before, after = (z.flatten(1).norm(NORMS[mechanism], dim=1) for z in (scaled, prepared))
    assert after.numpy() == pytest.approx(before.clamp_max(3.0).numpy(), rel=1e-5)
    assert torch.equal(prepared[before <= 3], scaled[before <= 3])


def test_it_is_the_channel_only_where_no_noise_comes_before() -> None:
    alone, after = (make_defense(noise_std, [LocalDp(mechanism="laplace", clip=1.0)]) for noise_std in (0.0, 0.1))
    assert alone.channel == LaplaceNoise(2 * math.sqrt(2))
    assert alone.only_channel
    assert alone.prepares
    assert after.channel == GaussianNoise(0.1)
    assert not after.only_channel
    assert after.prepare(CLEAN) is CLEAN
    noise = sent(LocalDp(mechanism="laplace", clip=1e-6), CLEAN, noise_std=0.1)
    assert float(noise.abs().max()) < 1e-3  # clipped after the noise, too


def test_what_epsilon_means() -> None:
    assert "nominal: without clip" in LocalDp().meaning
    assert "nominal: the Gaussian mechanism" in LocalDp(epsilon=3, clip=1).meaning
    said = "for one look at z when one image is replaced by any other; n looks cost n times as much"
    assert LocalDp(clip=1).meaning == f"ε = 1, δ = 0.0001 {said}"
    assert LocalDp(clip=1, mechanism="laplace", epsilon=5).meaning.startswith("ε = 5 for one look")


def test_laplace_has_no_delta() -> None:
    with pytest.raises(ValidationError, match="laplace has no δ"):
        LocalDp(mechanism="laplace", delta=0.01)


def test_noise_after_the_channel_is_more_than_hiding() -> None:
    """Then a lower bound on what the channel leaks is none on what leaves."""
    assert make_defense(0.05, [Dropout(), TopK()]).only_hides
    assert make_defense(0.0, [LocalDp(), Dropout()]).only_hides, "it is the channel"
    assert not make_defense(0.05, [LocalDp(), Dropout()]).only_hides
