"""The Gaussian surrogate: a full covariance of all numbers of ẑ, from earlier batches of the epoch, in closed form."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.config import GaussianSurrogate
from cem.mixture import label_entropy, noise_entropy
from cem.surrogates.base import NOISE_VARIANCE_FLOOR, Given, Surrogate, SurrogateError, Terms, intra_class_mse
from cem.surrogates.thresholds import VarianceThreshold, hinge
from cem.types import Labels, Smashed

_VARIANCE_FLOOR = 1e-6  # of the support, in units of z squared
_PRIOR_COUNT = 200.0  # how many samples a covariance that is simpler weighs: benchmarks/mixture_ablation.py
_MOST_SHRUNK = 1e6  # samples that the mean of all classes weighs at most, in the mean of one


class Samples(NamedTuple):
    """Some ẑ, flat, and their labels."""

    flat: Float[Tensor, "n d"]
    labels: Labels


class Density(NamedTuple):
    """N(mean of the class, Σ) of ẑ + ε, with Σ = L Lᵀ; all in float64, as constants of the graph."""

    means: Float[Tensor, "cls d"]
    factor: Float[Tensor, "d d"]


class Gaussian(Surrogate):
    """Scores a batch under a Gaussian that is estimated from earlier batches of the epoch, and from nothing else.

        leakage = −E log q(ẑ + ε | y) + H(y) − h(ε)     nats per image, H(y) of the population

    q has a mean for each class and one full covariance Σ: log q is a chain of linear regressions, each number of ẑ on
    all those before it. No parameter of q depends on a sample that it scores, so this is an upper bound on I(x; z). The
    expectation over ε is exact, and no noise is drawn. The gradient reaches ẑ through the scored samples alone; where q
    is the density of ẑ + ε, it is the gradient of h(ẑ + ε | y).

    An epoch's first batch, which has nothing before it, is scored half by half, each under the other half's density.
    Source: docs/theory.md, "A bound from any density" and "The Gaussian chain".
    """

    numbers = ("seen",)
    class_prior: Tensor
    smashed: Tensor  # of the epoch's last samples, a ring
    labels: Tensor
    shift: Tensor  # for each two positions, which of all displacements lies between them
    seen: int  # samples of the epoch so far

    def __init__(self, cfg: GaussianSurrogate, given: Given) -> None:
        super().__init__()
        channels, height, width = given.smashed_shape
        self.channels, self.positions, self.dimensions = channels, height * width, channels * height * width
        if self.dimensions > cfg.max_dimensions:
            raise SurrogateError(
                f"the gaussian surrogate has a covariance of all numbers of z: z of {channels}×{height}×{width} has "
                f"{self.dimensions:,}, at most {cfg.max_dimensions:,} are allowed. Add a bottleneck, cut later, raise "
                "max_dimensions (time grows with its cube), or use kind gmm."
            )
        self.cfg, self.seen = cfg, 0
        self.threshold = VarianceThreshold(cfg.threshold, given.noise_std)
        self.take_noise(given.noise_std)
        self.register_buffer("class_prior", given.class_prior.float())
        self.prior_entropy = label_entropy(given.class_prior)
        self.register_buffer("smashed", torch.zeros(cfg.support, self.dimensions))
        self.register_buffer("labels", torch.zeros(cfg.support, dtype=torch.int64))
        self.register_buffer("shift", displacements(height, width), persistent=False)
        self.displacements = (2 * height - 1) * (2 * width - 1)

    def take_noise(self, noise_std: float) -> None:
        self.noise_std, self.threshold.noise_std = noise_std, noise_std
        self.noise_variance = max(noise_std**2, NOISE_VARIANCE_FLOOR)

    def measure_threshold(self, smashed: Smashed, labels: Labels) -> None:
        self.threshold.measure(smashed.flatten(1), labels)

    def begin_epoch(self, progress: float) -> None:
        """Move a scheduled threshold; forget the samples of the epoch before, which this one scores again."""
        self.threshold.begin_epoch(progress)
        self.seen = 0

    def monitor(self) -> dict[str, float]:
        """The threshold, if there is one."""
        threshold = self.threshold.value()
        return {} if threshold is None else {"threshold": threshold}

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch, in closed form; `generator` is not used. The batch then joins the support of the next.

        loss: the leakage per dimension; with a threshold, mean over dimensions of ½·hinge(v), where v is the variance
        of the scored samples' innovations: of each number, less what the numbers before it tell of it. Σ predicts them
        but is not what is held against the threshold: only the samples can lower it.

        Raises SurrogateError for an epoch that starts with one sample.
        """
        flat, threshold = smashed.flatten(1), self.threshold.value()
        nll, excess = flat.new_zeros((), dtype=torch.float64), flat.new_zeros((), dtype=torch.float64)
        for support, scored in self._divided(flat, labels):
            density, share = self._density(*support), len(scored.labels) / len(labels)
            deviation = scored.flat.double() - density.means[scored.labels]
            nll = nll + share * self._nll(density, deviation)
            if threshold is not None:
                excess = excess + share * self._excess(density, deviation, threshold)
        bound = nll + self.prior_entropy - noise_entropy(self.dimensions, math.sqrt(self.noise_variance))
        loss = bound / self.dimensions if threshold is None else excess
        leakage = bound.detach() if self.noise_std > 0 else torch.full_like(bound.detach(), math.inf)
        self._remember(flat.detach(), labels)
        return Terms(loss.to(smashed.dtype), leakage.to(smashed.dtype), intra_class_mse(smashed, labels))

    def _divided(self, flat: Float[Tensor, "batch d"], labels: Labels) -> list[tuple[Samples, Samples]]:
        """What is scored, each after the samples that its density is estimated from."""
        held = min(self.seen, self.cfg.support)
        if 2 * held >= len(labels):
            return [(Samples(self.smashed[:held], self.labels[:held]), Samples(flat, labels))]
        if len(labels) < 2:
            raise SurrogateError(
                "the gaussian surrogate scores one half of an epoch's first batch under the other and needs two "
                "samples; found 1. Use a larger batch_size."
            )
        order = torch.argsort(labels, stable=True)  # both halves have the classes in the same shares
        one, other = (Samples(flat[rows], labels[rows]) for rows in (order[::2], order[1::2]))
        return [(Samples(one.flat.detach(), one.labels), other), (Samples(other.flat.detach(), other.labels), one)]

    def _remember(self, flat: Float[Tensor, "batch d"], labels: Labels) -> None:
        flat, labels = flat[-self.cfg.support :], labels[-self.cfg.support :]
        place = (self.seen + torch.arange(len(labels), device=labels.device)) % self.cfg.support
        self.smashed.index_copy_(0, place, flat)
        self.labels.index_copy_(0, place, labels)
        self.seen += len(labels)

    @torch.no_grad()
    def _density(self, flat: Float[Tensor, "n d"], labels: Labels) -> Density:
        """The density of ẑ + ε that a support predicts.

        Σ shrinks twice: to a covariance whose correlations depend on the displacement between two positions alone, and
        that, which every position has a part in, to one without correlations. Either counts as _PRIOR_COUNT samples.
        """
        n, positions = len(flat), self.positions
        means, deviation = class_means_and_deviations(flat, labels, len(self.class_prior))
        squared = deviation.square().sum(0)
        of_channel = squared.view(-1, positions).mean(1, keepdim=True).expand(-1, positions).flatten() / n
        variance = ((squared + of_channel) / (n + 1)).clamp_min(_VARIANCE_FLOOR)
        scaled = deviation / (variance * (n + 1)).sqrt()
        own = scaled.T @ scaled
        same = self._stationary(own) * (n * positions / (n * positions + _PRIOR_COUNT))
        correlation = (own * n + same * _PRIOR_COUNT) / (n + _PRIOR_COUNT)
        correlation.fill_diagonal_(1.0)
        scale = variance.double().sqrt()
        covariance = correlation.double() * scale * scale.unsqueeze(1)
        covariance.diagonal().add_(self.noise_variance)
        # `cholesky` would wait for a GPU, to raise; a factor that is not finite makes a loss that training refuses.
        return Density(means.double(), torch.linalg.cholesky_ex(covariance).L)

    def _stationary(self, correlation: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
        """Sums of the correlations of all positions with the same displacement, over the number of positions.

        Divided by how many they are, far displacements would weigh more, and the result need not be positive.
        """
        channels, positions = self.channels, self.positions
        pairs = correlation.view(channels, positions, channels, positions).permute(1, 3, 0, 2).flatten(0, 1).flatten(1)
        sums = pairs.new_zeros(self.displacements, channels**2).index_add(0, self.shift, pairs) / positions
        same = sums[self.shift].view(positions, positions, channels, channels)
        return same.permute(2, 0, 3, 1).reshape(self.dimensions, self.dimensions)

    def _nll(self, density: Density, deviation: Float[Tensor, "batch d"]) -> Float[Tensor, ""]:
        """Mean of −log q(ẑ + ε | y) over the batch and all ε, nats for one image."""
        precision = torch.cholesky_inverse(density.factor)
        squared = (deviation @ precision * deviation).sum(1).mean() + self.noise_variance * precision.trace()
        log_det = 2 * density.factor.diagonal().log().sum()
        nll: Tensor = 0.5 * (squared + log_det + self.dimensions * math.log(2 * math.pi))
        return nll

    def _excess(self, density: Density, deviation: Float[Tensor, "batch d"], threshold: float) -> Float[Tensor, ""]:
        """What the variances of the scored samples' innovations have above the threshold, nats per dimension."""
        identity = torch.eye(self.dimensions, dtype=deviation.dtype, device=deviation.device)
        whiten = torch.linalg.solve_triangular(density.factor, identity, upper=False)
        squared = (deviation @ whiten.T).square().mean(0) + self.noise_variance * whiten.square().sum(1)
        variance = squared * density.factor.diagonal().square() - self.noise_variance
        return 0.5 * hinge(variance.clamp_min(0), threshold, self.noise_variance).mean()


def class_means_and_deviations(
    flat: Float[Tensor, "n d"], labels: Labels, classes: int
) -> tuple[Float[Tensor, "cls d"], Float[Tensor, "n d"]]:
    """Mean of each class, shrunk to that of all; and each sample less the mean that the others predict for it.

    The mean of all counts as W/B samples, of the variances within classes and between them, so that a class of two
    samples has a mean of its own where classes are far apart only. A deviation from a mean that the sample is part of
    would be too small: by half, in a class of two.
    """
    n = len(flat)
    count = flat.new_zeros(classes).index_add(0, labels, flat.new_ones(n)).unsqueeze(1)
    sums = flat.new_zeros(classes, flat.shape[1]).index_add(0, labels, flat)
    total = sums.sum(0)
    all_variance = (flat - total / n).square().sum() / max(n - 1, 1)
    free = n - (count > 0).sum()
    within = (flat - (sums / count.clamp_min(1))[labels]).square().sum() / free.clamp_min(1)
    within = torch.where(free > 0, within, all_variance)
    weight = within / (all_variance - within).clamp_min(within / _MOST_SHRUNK + torch.finfo(flat.dtype).tiny)
    weight = weight.clamp(1 / _MOST_SHRUNK, _MOST_SHRUNK)
    means = (sums + weight * total / n) / (count + weight)
    others = sums[labels] - flat + weight * (total - flat) / max(n - 1, 1)
    return means, flat - others / (count[labels] - 1 + weight)


def displacements(height: int, width: int) -> Int[Tensor, " pair"]:
    """For each two positions of a grid, first by first, the number of the displacement between them."""
    row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    down, right = (place.unsqueeze(1) - place + size - 1 for place, size in ((row, height), (column, width)))
    return (down * (2 * width - 1) + right).flatten()
