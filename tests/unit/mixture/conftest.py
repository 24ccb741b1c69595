"""Mixtures to draw from."""

from collections.abc import Callable

import pytest
import torch

from cem.mixture import ClassMixture


@pytest.fixture
def generator() -> Callable[[int], torch.Generator]:
    return lambda seed=0: torch.Generator().manual_seed(seed)


@pytest.fixture
def mixture() -> Callable[..., ClassMixture]:
    """Diagonal components, or with `rank` low-rank ones, a given number of standard deviations apart."""

    def made(
        classes: int = 3,
        components: int = 2,
        d: int = 6,
        *,
        apart: float = 8.0,
        std: float = 0.1,
        rank: int = 0,
        seed=0,
    ) -> ClassMixture:
        draws = torch.Generator().manual_seed(seed)
        shape = (classes, components, d)
        variances = std**2 * (0.5 + torch.rand(shape, generator=draws))
        # Two independent means are on average √(2d) of their scale apart.
        means = torch.randn(shape, generator=draws) * std * apart / (2 * d) ** 0.5
        weights = 0.5 + torch.rand(shape[:2], generator=draws)
        weights, prior = weights / weights.sum(1, keepdim=True), 0.5 + torch.rand(classes, generator=draws)
        if not rank:
            return ClassMixture(weights, means, variances, prior / prior.sum())
        basis = torch.linalg.qr(torch.randn(classes, d, rank, generator=draws)).Q
        spread = std**2 * 4 * (0.5 + torch.rand(classes, components, rank, generator=draws))
        return ClassMixture(weights, means, variances, prior / prior.sum(), basis, spread)

    return made


@pytest.fixture
def draw() -> Callable[[ClassMixture, int, int], tuple[torch.Tensor, torch.Tensor]]:
    """Samples whose classes have the mixture's shares."""

    def drawn(mixture: ClassMixture, n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        draws = torch.Generator().manual_seed(seed)
        labels = torch.multinomial(mixture.class_prior, n, replacement=True, generator=draws)
        return mixture.sample(labels, generator=draws), labels

    return drawn
