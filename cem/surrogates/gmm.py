"""The GMM surrogate: Theorem 2 (`bound`), and the heuristic as it was released (`legacy`)."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.config import GmmSurrogate
from cem.mixture import ClassMixture, capacity, fit_mixture_as
from cem.surrogates.base import NOISE_VARIANCE_FLOOR, Given, Surrogate, Terms, intra_class_mse
from cem.surrogates.thresholds import VarianceThreshold, hinge
from cem.types import Labels, Smashed

_GAMMA = 0.01  # γ of the released code, in place of σ²
_AMPLIFIED = 10.0  # the released code counts a batch's samples ten times when it mixes variances
_CAP = 0.99  # and never lets the old variance's share fall below one hundredth


class Gmm(Surrogate):
    """Mixtures of the private ẑ, refitted between epochs; between refits a batch moves the statistics it touches.

    bound: loss · d = Σ_k π_k (−log π_k + ½ log(|Σ_k + σ²I| / |σ²I|)), over the components of all classes; legacy: mean
    over the batch's classes of Σ_k w_k relu(log(v_k + γ) − log(thr + γ)), no bound, which leaves the mixture as it is.
    The leakage is Theorem 2 of the mixture as it stands, nats for one image: of the samples that it was fitted to.
    Source: Theorem 2 (arXiv 2503.00383); docs/theory.md, "The leakage bound" and "The released heuristic".
    """

    numbers = ("fitted_on",)
    class_prior: Tensor
    weights: Tensor
    means: Tensor
    norms: Tensor  # squared distance of each mean to the first of its class
    variances: Tensor
    basis: Tensor  # pca only, and empty without a rank
    spread: Tensor
    fitted_on: int  # number of samples of the last fit; 0 before it
    leakage: Tensor  # bound of the mixture as it stands, nats for one image

    def __init__(self, cfg: GmmSurrogate, given: Given) -> None:
        super().__init__()
        self.cfg, self.seed = cfg, given.seed
        self.threshold = VarianceThreshold(cfg.threshold, given.noise_std)
        self.take_noise(given.noise_std)
        self.refits = self.fitted_on = 0
        components = 1 if cfg.components == "auto" else cfg.components  # auto: until a mixture says how many
        dimensions = math.prod(given.smashed_shape)
        rank = min(cfg.rank, dimensions) if cfg.covariance == "pca" else 0
        sizes = (len(given.class_prior), components, dimensions)
        self.register_buffer("class_prior", given.class_prior.float())
        self.register_buffer("weights", torch.full(sizes[:2], 1 / components))
        self.register_buffer("means", torch.zeros(sizes))
        self.register_buffer("norms", torch.zeros(sizes[:2]))
        self.register_buffer("variances", torch.ones(sizes))
        self.register_buffer("basis", torch.zeros(sizes[0], sizes[2], rank))
        self.register_buffer("spread", torch.zeros(*sizes[:2], rank))
        self.register_buffer("leakage", torch.zeros(()))
        if given.mixture is not None:
            self._take(given.mixture, given.num_samples or 0)

    @property
    def mixture(self) -> ClassMixture:
        """The mixture as it stands. Raises RuntimeError before the first fit."""
        if not self.fitted_on:
            raise RuntimeError("the gmm surrogate has no mixture yet: give it one with its sample count, or call refit")
        extra = (self.basis, self.spread) if self.cfg.covariance == "pca" else ()
        return ClassMixture(self.weights, self.means, self.variances, self.class_prior, *extra)

    def _take(self, mixture: ClassMixture, num_samples: int) -> None:
        if num_samples < 1:
            raise ValueError(f"a mixture comes with the number of samples it was fitted to; found {num_samples}")
        for name, tensor in mixture.tensors().items():
            if name != "class_prior":
                setattr(self, name, tensor.to(getattr(self, name)).clone())
        self.norms = (self.means - self.means[:, :1]).square().sum(-1)
        self.fitted_on = num_samples
        self.leakage.fill_(self.mixture.leakage_bound(self.noise_std))

    def measure_threshold(self, smashed: Smashed, labels: Labels) -> None:
        self.threshold.measure(smashed.flatten(1), labels)

    def take_noise(self, noise_std: float) -> None:
        self.noise_std, self.threshold.noise_std = noise_std, noise_std
        self.noise_variance = max(noise_std**2, NOISE_VARIANCE_FLOOR)

    def begin_epoch(self, progress: float) -> None:
        """Move a scheduled threshold."""
        self.threshold.begin_epoch(progress)

    def monitor(self) -> dict[str, float]:
        """The threshold, if there is one."""
        threshold = self.threshold.value()
        return {} if threshold is None else {"threshold": threshold}

    def refit(self, smashed: Smashed, labels: Labels) -> None:
        """Fit again to the clean ẑ of all private images, from the components as they stand. Raises MixtureError."""
        # One generator a refit: a resumed run draws what the uninterrupted one would have.
        generator = torch.Generator(smashed.device).manual_seed(self.seed + self.refits)
        mixture = fit_mixture_as(
            self.cfg.mixture,
            smashed.flatten(1),
            labels,
            generator,
            num_classes=len(self.class_prior),
            start=self.mixture if self.fitted_on else None,
            noise_std=self.noise_variance**0.5,
        )
        self._take(mixture, len(labels))
        self.refits += 1

    def get_extra_state(self) -> Tensor:
        """How many refits there were: part of a checkpoint."""
        return torch.tensor(self.refits)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of refits."""
        self.refits = int(state)

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch, in closed form; `generator` is not used.

        Raises RuntimeError before the first fit, ValueError for legacy without a threshold.
        """
        flat = smashed.flatten(1)
        mixture = self.mixture
        batch = _BatchMoments(flat, labels, mixture, self.norms)
        if self.cfg.formula == "bound":
            loss = self._bound(batch, mixture)
            self.leakage.copy_(self._leakage(loss))
        else:
            loss = self._legacy(batch, mixture)  # which leaves the mixture as it is
        return Terms(loss, self.leakage.clone(), intra_class_mse(smashed, labels))

    @torch.no_grad()
    def _leakage(self, bound: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Theorem 2 of the mixture as it stands, nats per image; without a threshold `bound` is that per dimension."""
        if self.noise_std > NOISE_VARIANCE_FLOOR**0.5 and self.cfg.threshold.kind == "none":
            return bound.double() * self.means.shape[-1]
        return self.mixture.bound_nats(self.noise_std)

    def _bound(self, batch: "_BatchMoments", mixture: ClassMixture) -> Float[Tensor, ""]:
        """Theorem 2 per dimension, with the running update of π and Σ.

        π_k ← (π_k (N − B) + n_k)/N and v_k ← (1 − r) v_k + r Δ_k with r = n_k/(π_k N), Δ_k the batch's own variance.
        The published gradient goes through r Δ_k and so fades with the size N of the data set; here it is scaled by
        N/B, which makes it the minibatch estimate of the gradient of the whole data set's bound, whatever N. The value
        is the published one. Source: docs/theory.md, "The running update".
        """
        # 1. The share of each component in the population, and how far it moves towards the batch's own.
        total, size = float(self.fitted_on), float(len(batch.index))
        prior = self.class_prior.repeat_interleave(mixture.weights.shape[1])
        share = (prior * mixture.weights.flatten() * (total - size) + batch.count) / total
        rate = (batch.count / (share * total).clamp_min(1e-12)).clamp_max(1.0).unsqueeze(1)
        # 2. Its covariance after that move; the gradient flows through the batch's part alone, times the gain.
        gain = total / size
        variance = _moved(mixture.covariance_diagonal.flatten(0, 1), batch.variance, rate, gain)
        low_rank = self._low_rank(batch, mixture, rate, gain, variance) if self.cfg.covariance == "pca" else None
        # 3. The mixture goes on from there, as numbers: the next batch's graph does not reach back into this one.
        with torch.no_grad():
            self.weights.copy_((share / prior.clamp_min(1e-12)).view_as(self.weights))
            self.weights.div_(self.weights.sum(1, keepdim=True))
            diagonal, spread = (variance, None) if low_rank is None else low_rank
            self.variances.copy_(diagonal.view_as(self.variances))
            if spread is not None:
                self.spread.copy_(spread.view_as(self.spread))
        # 4. What each component can send through the noise, in nats; with a threshold, what lies above that.
        dimensions = variance.shape[1]
        threshold = self.threshold.value()
        if threshold is not None:
            nats = 0.5 * hinge(variance, threshold, self.noise_variance).sum(1)
        elif low_rank is None:
            nats = capacity(variance, self.noise_variance)
        else:
            basis = self.basis.repeat_interleave(mixture.weights.shape[1], 0)
            nats = capacity(low_rank[0], self.noise_variance, basis, low_rank[1])
        # 5. Theorem 2: the mean over components, and the entropy of which component it is.
        entropy: Tensor = torch.special.entr(share)
        return (entropy + share * nats).sum() / dimensions

    def _low_rank(
        self,
        batch: "_BatchMoments",
        mixture: ClassMixture,
        rate: Float[Tensor, "components 1"],
        gain: float,
        variance: Float[Tensor, "components d"],
    ) -> tuple[Float[Tensor, "components d"], Float[Tensor, "components rank"]]:
        """v and λ of diag(v) + U diag(λ) Uᵀ after the update: the variances along U move as those of the dimensions do.

        One round of the alternation that fits them, from λ as it stands.
        """
        squared = self.basis.square().repeat_interleave(mixture.weights.shape[1], 0)  # [components, d, rank]
        spread = self.spread.flatten(0, 1)
        before = mixture.variances.flatten(0, 1)

        def along(diagonal: Tensor) -> Tensor:
            return (diagonal.unsqueeze(1) @ squared).squeeze(1)

        target = _moved(along(before) + spread, batch.along, rate, gain)
        diagonal = (variance - (squared @ spread.unsqueeze(-1)).squeeze(-1)).clamp_min(0)
        spread = (target - along(diagonal)).clamp_min(0)
        return (variance - (squared @ spread.unsqueeze(-1)).squeeze(-1)).clamp_min(0), spread

    def _legacy(self, batch: "_BatchMoments", mixture: ClassMixture) -> Float[Tensor, ""]:
        """The released heuristic, log form. Source: docs/theory.md, "The released heuristic"."""
        classes, components = mixture.weights.shape
        weights, old = mixture.weights.flatten(), mixture.variances.flatten(0, 1)[:, 0]
        expected = weights * self.fitted_on / classes
        rate = _AMPLIFIED * batch.count / expected.clamp_min(1e-12)
        rate = rate.masked_fill(rate >= 1, _CAP)
        variance = rate * batch.overall + (1 - rate) * old
        threshold = self.threshold.value()
        if threshold is None:
            raise ValueError("formula legacy needs a threshold: coupled (published) or fixed")
        hit = batch.count > 0
        terms = (weights * hinge(variance, threshold, _GAMMA)).masked_fill(~hit, 0.0)
        present = hit.view(classes, components).any(1).sum()
        return terms.sum() / present


def _moved(
    old: Float[Tensor, "components n"],
    new: Float[Tensor, "components n"],
    rate: Float[Tensor, "components 1"],
    gain: float,
) -> Float[Tensor, "components n"]:
    """(1 − rate) old + rate new, whose gradient in `new` is `gain` times that."""
    return (1 - rate) * old + rate * new.detach() + rate * gain * (new - new.detach())


class _BatchMoments:
    """Samples of a batch, each with the nearest component of its own class: count and variance of each component.

    Components are numbered class by class. Variances are around the mixture's means, which are constants; they are zero
    for a component without samples.
    """

    count: Float[Tensor, " components"]

    def __init__(
        self,
        flat: Float[Tensor, "batch d"],
        labels: Labels,
        mixture: ClassMixture,
        norms: Float[Tensor, "cls component"],
    ) -> None:
        classes, components, _ = mixture.means.shape
        own = mixture.means.index_select(0, labels)  # three times as fast as means[labels]
        with torch.no_grad():
            # ‖z − μ‖² less ‖z − μ₀‖², both about the class's first mean: large squares would drown the difference.
            # The row on the left: the other way round, the product of a matrix and a vector takes ten times as long.
            cross = torch.bmm((flat - own[:, 0]).unsqueeze(1), own.transpose(1, 2)).squeeze(1)
            squared = norms[labels] - 2 * (cross - cross[:, :1])
            squared = squared.masked_fill(mixture.weights[labels] == 0, math.inf)
            nearest: Int[Tensor, " batch"] = squared.argmin(1)
            self.index = labels * components + nearest
            ones = torch.ones_like(self.index, dtype=flat.dtype)
            self.count = ones.new_zeros(classes * components).index_add(0, self.index, ones)  # bincount would wait
        self.basis = None if mixture.basis is None else mixture.basis[labels]
        self.deviation = flat - mixture.means.flatten(0, 1).index_select(0, self.index)

    @property
    def variance(self) -> Float[Tensor, "components d"]:
        """Of each dimension."""
        return self._mean(self.deviation.square())

    @property
    def overall(self) -> Float[Tensor, " components"]:
        """Mean over the dimensions."""
        return self._mean(self.deviation.square().mean(1, keepdim=True)).squeeze(1)

    @property
    def along(self) -> Float[Tensor, "components rank"]:
        """Along the basis of the class, of a pca mixture."""
        assert self.basis is not None
        return self._mean((self.deviation.unsqueeze(1) @ self.basis).squeeze(1).square())

    def _mean(self, squares: Float[Tensor, "batch n"]) -> Float[Tensor, "components n"]:
        sums = squares.new_zeros(len(self.count), squares.shape[1]).index_add(0, self.index, squares)
        return sums / self.count.clamp_min(1).unsqueeze(1)
