"""Populations whose leakage is known: ẑ, and the exact density of ẑ + ε."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal


@dataclass(frozen=True)
class Population:
    """Σ_k π_k N(μ_k, Σ_k), each component of a class; low rank, and of any width."""

    weights: Tensor
    means: Tensor
    covariances: Tensor
    classes: Tensor

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        draws = torch.Generator().manual_seed(seed)
        component = torch.multinomial(self.weights, n, replacement=True, generator=draws)
        values, vectors = torch.linalg.eigh(self.covariances)
        root = vectors * values.clamp_min(0).sqrt().unsqueeze(1)
        normal = torch.randn(n, self.means.shape[1], generator=draws, dtype=torch.float64)
        z = self.means[component] + (root[component] @ normal.unsqueeze(-1)).squeeze(-1)
        return z.float(), self.classes[component]

    def information(self, z: Tensor, noise: Tensor, noise_std: float) -> Tensor:
        """log p(ẑ + σε | x) − log p(ẑ + σε) of each image, in nats: its mean is I(x; ẑ + σε)."""
        d = z.shape[1]
        covariances = self.covariances + noise_std**2 * torch.eye(d).double()
        density = MixtureSameFamily(Categorical(self.weights), MultivariateNormal(self.means, covariances))
        log_channel = -0.5 * (noise.double().square() + math.log(2 * math.pi * noise_std**2)).sum(1)
        return log_channel - density.log_prob(z.double() + noise_std * noise.double())

    def truth(self, noise_std: float, n: int = 20_000) -> tuple[float, float]:
        """I(x; ẑ + ε) in nats, and the standard error of that."""
        z, _ = self.draw(n, 99)
        noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(98))
        values = self.information(z, noise, noise_std)
        return float(values.mean()), float(values.std() / n**0.5)


def gaussian(d: int, seed: int) -> Population:
    """One class, any covariance."""
    draws = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(d, d, generator=draws, dtype=torch.float64)).Q
    covariance = rotation @ torch.diag(torch.logspace(0, -3, d, dtype=torch.float64)) @ rotation.T
    one = torch.ones(1, dtype=torch.float64)
    return Population(one, torch.zeros(1, d).double(), covariance.unsqueeze(0), torch.zeros(1).long())


def mixture(d: int, seed: int) -> Population:
    """Three classes of two components, whose correlated clouds overlap more or less."""
    draws = torch.Generator().manual_seed(seed)
    weights = 0.3 + torch.rand(6, generator=draws, dtype=torch.float64)
    means = torch.randn(6, d, generator=draws, dtype=torch.float64) * (0.3 + seed % 3)
    roots = torch.randn(6, d, d, generator=draws, dtype=torch.float64) * 0.5 / d**0.5
    covariances = roots @ roots.transpose(1, 2)
    return Population(weights / weights.sum(), means, covariances, torch.arange(6) // 2)


def low_rank(d: int, seed: int) -> Population:
    """Two classes in planes of dimension 3: the rest of ẑ does not vary at all."""
    draws = torch.Generator().manual_seed(seed)
    roots = torch.randn(2, d, 3, generator=draws, dtype=torch.float64)
    means = 2 * torch.randn(2, d, generator=draws, dtype=torch.float64)
    return Population(torch.full((2,), 0.5).double(), means, roots @ roots.transpose(1, 2), torch.arange(2))


def heavy_tails(d: int, seed: int) -> Population:
    """Two classes, each a cloud with tails: one image in twenty is five times as far out, one in a hundred 25 times."""
    draws = torch.Generator().manual_seed(seed)
    weights = torch.tensor([0.94, 0.05, 0.01]).double().repeat(2) / 2
    scale = torch.tensor([1.0, 25.0, 625.0]).double().repeat(2)
    root = torch.randn(d, d, generator=draws, dtype=torch.float64) * 0.3 / d**0.5
    means = torch.randn(2, d, generator=draws, dtype=torch.float64).repeat_interleave(3, 0)
    covariances = scale[:, None, None] * (root @ root.T + 0.01 * torch.eye(d).double())
    return Population(weights, means, covariances, torch.arange(6) // 3)


KINDS: tuple[Callable[[int, int], Population], ...] = (gaussian, mixture, low_rank, heavy_tails)
