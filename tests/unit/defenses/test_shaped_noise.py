"""Noise that is spread over the numbers of z: its budget, how it is spread, and that the task feels it least."""

import pytest
import torch

from cem.config import Dropout, ShapedNoise
from cem.defenses import Place, make_defense

PLACE = Place(image=(1, 8, 8), smashed=(2, 2, 2), num_classes=3)
SIZES = torch.tensor([0.1, 0.2, 0.5, 1.0, 1.0, 2.0, 3.0, 5.0]).view(2, 2, 2)  # of the loss's slope along each number


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(cfg: ShapedNoise, steps: int, *, others=(), lr: float = 1.0):
    """A defence that has seen a loss with these slopes."""
    defense, draws = make_defense(0.0, [cfg, *others]), generator(1)
    defense.begin_training(PLACE, generator(2), torch.zeros(1))
    learned = list(defense.learned.parameters())
    optimizer = torch.optim.SGD(learned, lr) if learned else None
    for _ in range(steps):
        clean = torch.rand(256, *PLACE.smashed, generator=draws, requires_grad=True)
        z = defense.corrupt(clean, draws)
        (SIZES * (z - clean.detach())).flatten(1).square().sum(1).mean().backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
    return defense


@pytest.mark.parametrize("shape", ["fisher", "learned"])
def test_the_mean_variance_stays_and_no_number_goes_without(shape) -> None:
    cfg = ShapedNoise(std=0.3, shape=shape, floor=0.05)
    equal, after = (trained(cfg, steps).channel.profile.detach() for steps in (0, 60))
    assert torch.allclose(equal, torch.ones(2, 2, 2))
    assert float(after.mean()) == pytest.approx(1, rel=1e-5)
    assert float(after.min()) >= 0.05
    assert float(after.std()) > 0.1
    assert trained(cfg, 60).channel.noise_std == 0.3


def test_fisher_gives_each_number_the_inverse_of_its_information() -> None:
    """Gradients at z are 2 sizes² noise, and the noise is shaped, too: held still here."""
    cfg = ShapedNoise(floor=1e-6)
    defense = make_defense(0.0, [cfg])
    defense.begin_training(PLACE, generator(2), torch.zeros(1))
    for seed in range(40):
        clean = torch.zeros(512, *PLACE.smashed, requires_grad=True)
        weights = torch.randn(512, *PLACE.smashed, generator=generator(seed)) * SIZES
        (weights * defense.corrupt(clean, generator(seed + 100))).flatten(1).sum(1).mean().backward()
    information = SIZES.square()
    share = 1 / (information + 0.01 * information.mean())
    assert defense.channel.profile.numpy() == pytest.approx((share / share.mean()).numpy(), rel=0.03)


@pytest.mark.parametrize("shape", ["fisher", "learned"])
def test_the_task_feels_it_less_than_noise_of_one_size(shape) -> None:
    profile = trained(ShapedNoise(std=0.3, shape=shape), 200).channel.profile.detach()
    assert float((SIZES.square() * profile).sum()) < 0.5 * float(SIZES.square().sum())


def test_of_one_entropy_it_is_what_the_task_feels_least() -> None:
    """Σ F s² over noise of the entropy that s² ∝ 1/F has: every other spread costs more."""
    information = SIZES.square().flatten()
    best = 1 / information
    for seed in range(20):
        other = torch.rand(8, generator=generator(seed)) + 0.01
        other *= (best.log().mean() - other.log().mean()).exp()
        assert float((information * other).sum()) > float((information * best).sum())


def test_only_training_takes_note() -> None:
    defense = make_defense(0.0, [ShapedNoise(), Dropout()])
    defense.begin_training(PLACE, generator(2), torch.zeros(1))
    before = defense.channel.profile.clone()
    clean = torch.rand(32, *PLACE.smashed, generator=generator(3), requires_grad=True)
    defense.learned.eval()
    (defense.corrupt(clean, generator(4)) * SIZES).sum().backward()
    assert torch.equal(defense.channel.profile, before)
    defense.learned.train()
    (defense.corrupt(clean, generator(4)) * SIZES).sum().backward()
    assert not torch.equal(defense.channel.profile, before)


def test_noise_that_was_not_built_is_refused() -> None:
    with pytest.raises(RuntimeError, match="call build"):
        make_defense(0.0, [ShapedNoise()]).corrupt(torch.zeros(1, 2, 2, 2), generator())
