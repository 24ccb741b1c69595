"""The variational information bottleneck: its divergence, the size of its noise, and what it weighs."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from cem.config import Vib
from cem.defenses import Place, make_defense
from cem.defenses.vib import divergence

PLACE = Place(image=(1, 8, 8), smashed=(3, 2, 2), num_classes=3)
IMAGES, LABELS = torch.zeros(50, 1, 8, 8), torch.arange(50) % 3


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vib(**settings):
    defense = make_defense(0.0, [Vib(**settings)])
    defense.begin_training(PLACE, generator(), torch.zeros(1))
    return defense


def test_the_divergence_is_that_of_torch() -> None:
    mean, logs = (torch.randn(50, 3, 2, 2, generator=generator(seed)) for seed in (1, 2))
    expected = kl_divergence(Normal(mean, logs.exp()), Normal(0.0, 1.0)).flatten(1).sum(1).mean()
    assert float(divergence(mean, logs)) == pytest.approx(float(expected), rel=1e-5)
    assert float(divergence(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1))) == 0.0


def test_the_penalty_is_its_weight_times_that_and_reaches_encoder_and_size() -> None:
    clean = torch.rand(50, *PLACE.smashed, generator=generator(3), requires_grad=True)
    defense = vib(weight=0.2, initial_std=0.5)
    penalty = defense.penalty(IMAGES, clean, LABELS)
    assert float(penalty.detach()) == pytest.approx(
        0.2 * float(divergence(clean.detach(), torch.full_like(clean, math.log(0.5)).detach()))
    )
    penalty.backward()
    assert clean.grad is not None
    assert clean.grad.any()
    assert all(parameter.grad.any() for parameter in defense.learned.parameters())


def test_it_starts_as_gaussian_noise_and_descends_to_what_its_divergence_asks() -> None:
    """With β alone, s goes to 1 wherever ẑ is."""
    defense, clean = vib(weight=1.0, initial_std=0.3), torch.rand(50, *PLACE.smashed, generator=generator(4))
    noise = (defense.corrupt(clean, generator(5)) - clean).detach()
    assert float(noise.std()) == pytest.approx(0.3, rel=0.1)
    assert defense.channel.noise_std == pytest.approx(0.3)
    optimizer = torch.optim.SGD(defense.learned.parameters(), 0.02)
    for _ in range(300):
        optimizer.zero_grad()
        defense.learn(IMAGES, clean, LABELS)
        defense.penalty(IMAGES, clean, LABELS).backward()
        optimizer.step()
    noise = (defense.corrupt(clean, generator(6)) - clean).detach()
    assert float(noise.std()) == pytest.approx(1.0, rel=0.1)
    assert defense.channel.noise_std == pytest.approx(1.0, rel=0.1), "it is measured while it trains"


def test_noise_that_was_not_built_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call build"):
        make_defense(0.0, [Vib()]).corrupt(torch.zeros(1, 3, 2, 2), generator())
