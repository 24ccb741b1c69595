"""Populations of ẑ whose entropy is known, and surrogates made for them, fitted to them and scored on them."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cem.config import SurrogateSettings
from cem.surrogates import make_surrogate


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Population:
    """ẑ of known entropy: in each class, every token is drawn from a Gaussian mixture of its own.

    Tokens are independent given the class, so that token-wise bounds can be tight.
    """

    classes: int
    components: int
    shape: tuple[int, int, int]
    separation: float
    spread: float
    noise_std: float
    means: Tensor = field(init=False)  # [cls, component, position, channel]

    def __post_init__(self) -> None:
        channels, height, width = self.shape
        size = (self.classes, self.components, height * width, channels)
        self.means = self.separation * torch.randn(size, generator=generator(1))

    @property
    def dimensions(self) -> int:
        return math.prod(self.shape)

    def draw(self, n: int, seed: int) -> tuple[Tensor, Tensor]:
        """n samples of ẑ and their labels."""
        draws = generator(seed)
        labels = torch.randint(self.classes, (n,), generator=draws)
        positions = self.means.shape[2]
        component = torch.randint(self.components, (n, positions), generator=draws)
        means = self.means[labels[:, None], component, torch.arange(positions)]
        tokens = means + self.spread * torch.randn(means.shape, generator=draws)
        return tokens.transpose(1, 2).reshape(n, *self.shape), labels

    def true_leakage(self, noisy: Tensor, labels: Tensor) -> Tensor:
        """−log p(z|y) + H(y) − h(ε) of each sample, nats: its mean over the population is T."""
        tokens = noisy.flatten(2).transpose(1, 2).unsqueeze(1)
        variance = self.spread**2 + self.noise_std**2
        distance = (tokens - self.means[labels]).square().sum(-1) / variance
        channels = self.means.shape[-1]
        norm = 0.5 * channels * math.log(2 * math.pi * variance) + math.log(self.components)
        log_density = (torch.logsumexp(-0.5 * distance, 1) - norm).sum(1)
        entropy = 0.5 * self.dimensions * math.log(2 * math.pi * math.e * self.noise_std**2)
        return math.log(self.classes) - log_density - entropy

    def noise(self, n: int, seed: int) -> Tensor:
        """ε of a batch, as a surrogate that is given `generator(seed)` draws it."""
        return self.noise_std * torch.randn(n, *self.shape, generator=generator(seed))

    def expected_leakage(self) -> float:
        """T by Monte Carlo: −E log p(z|y) + H(y) + E log N(ε; 0, σ²I), both means over the same draws."""
        n = 2_000_000 // self.dimensions
        smashed, labels = self.draw(n, 77)
        noise = self.noise(n, 78)
        own = 0.5 * ((noise / self.noise_std).square().flatten(1).sum(1) - self.dimensions)
        return float((self.true_leakage(smashed + noise, labels) - own).double().mean())


REPETITIONS, BATCH = 50, 120
NEAR = Population(classes=3, components=2, shape=(4, 2, 2), separation=0.3, spread=0.3, noise_std=0.3)
POPULATIONS = {
    "d 8, 2 classes, one component": Population(2, 1, (8, 1, 1), 1.0, 0.3, 0.1),
    "d 8, 5 classes, separated": Population(5, 2, (8, 1, 1), 1.0, 0.1, 0.05),
    "d 16, overlapping, much noise": Population(3, 2, (4, 2, 2), 0.3, 0.3, 1.0),
    "d 64 a token, 10 classes": Population(10, 2, (64, 1, 1), 1.0, 0.3, 0.1),
    "d 512, little noise": Population(10, 2, (8, 8, 8), 0.5, 0.1, 0.01),
}


def make(population: Population, cfg: SurrogateSettings, seed: int = 3):
    return make_surrogate(
        cfg, smashed_shape=population.shape, num_classes=population.classes, noise_std=population.noise_std, seed=seed
    )


def fit(surrogate, population: Population, steps: int) -> None:
    optimizer = torch.optim.Adam(surrogate.parameters(), lr=surrogate.cfg.lr)
    for step in range(steps):
        smashed, labels = population.draw(256, 10_000 + step)
        loss = surrogate.fit_loss(smashed, labels, generator(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def paired(surrogate, population: Population, truth: float, n: int = BATCH) -> list[float]:
    """Its estimate on fresh draws less the truth's on the same draws, plus T: one for each repetition."""
    values = []
    for seed in range(REPETITIONS):
        smashed, labels = population.draw(n, 500 + seed)
        with torch.no_grad():
            estimate = surrogate(smashed, labels, generator(seed)).leakage_nats
        same = population.true_leakage(smashed + population.noise(n, seed), labels).mean()
        values.append(float(estimate - same) + truth)
    return values


def make_hostile(surrogate) -> None:
    """Weights that no training would give."""
    with torch.no_grad():
        for parameter in surrogate.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator(7)))
