"""The attention surrogate's default statistic: a density predicted from one half of the batch, scored on the other."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem.config import AttentionSurrogate
from cem.mixture import noise_entropy
from cem.surrogates.attention_base import SlotCrossAttentionCEM
from cem.surrogates.base import SurrogateError, Terms, class_rows, intra_class_mse
from cem.surrogates.thresholds import hinge
from cem.types import Labels, Smashed

_LOG_VARIANCE = (-16.0, 4.0)  # range of a component's log-variance, relative to the support's
_VARIANCE_FLOOR = 1e-6  # of the support, in units of z squared
_WEIGHT_FLOOR = 1e-9  # no component vanishes, whatever the heads say: the logarithm of its weight stays finite
_PRIOR_COUNT = 4.0  # how many samples a prediction of the heads weighs at first


class Halves(NamedTuple):
    """A batch in two halves of the same class frequencies; where the batch is odd, one row is padding."""

    rows: Int[Tensor, "2 half"]
    present: Float[Tensor, "2 half"]


class Components(NamedTuple):
    """Mixture of each (half, class) pair's tokens, a position at a time."""

    log_weight: Float[Tensor, "pair position component"]
    mean: Float[Tensor, "pair position component number"]
    variance: Float[Tensor, "pair position component number"]


class Scores(NamedTuple):
    """Both halves, scored: row i of half h under the mixture of pair[h, i], which half h did not predict.

    nll: mean over all samples, and over both signs of ε where it comes in pairs, of −log q(ẑ + ε | y), nats per
    dimension.
    """

    nll: Float[Tensor, ""]
    halves: Halves
    mixture: Components
    pair: Int[Tensor, "2 half"]
    joint: Float[Tensor, "sign 2 half position component"]


class MixtureAttention(SlotCrossAttentionCEM):
    """Predicts the density of one half of the batch from the other half, and scores it there.

    Slots summarise the tokens of the support half; a query for each (class, position) reads them, and heads give the
    weights, means and log-variances of the mixture of that class's token there, relative to the class's own mean and
    variance in the support. One step of EM on the support, with the heads' prediction as its prior, makes them precise.
    The other half is scored under that mixture convolved with the noise, then the halves swap:

        leakage = −E log q(ẑ + ε | y) + H(y) − h(ε)     nats per image, H(y) of the population

    The parameters of q depend on the support and on nothing of the sample that is scored, not even through the choice
    of the halves, which goes by labels and order. So the number is an upper bound on I(x; z) for any weights of the
    module that were not fitted to the images it scores; in training they were, in earlier epochs.
    Source: docs/theory.md, "A bound from any density" and "The attention mixture".
    """

    def __init__(
        self,
        cfg: AttentionSurrogate,
        shape: tuple[int, int, int],
        class_prior: Float[Tensor, " cls"],
        noise_std: float,
    ) -> None:
        super().__init__(cfg, shape, class_prior, noise_std)
        self.components = cfg.components
        self.position = nn.Parameter(torch.empty(self.positions, self.width))
        self.class_embedding = nn.Parameter(torch.empty(len(class_prior), self.width))
        heads = cfg.components * (1 + 2 * self.token_size)
        self.head = nn.Sequential(nn.LayerNorm(self.width), nn.Linear(self.width, heads))
        self.log_counts = nn.Parameter(torch.empty(3))  # of the prior, for weights, means, variances; × _PRIOR_COUNT

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch; its noise comes from `generator`.

        loss: the leakage per dimension; with a threshold, Σ_k share_k · mean over dimensions of ½·hinge(v_k), where v_k
        is the variance of the scored samples about the predicted mean of their component: the module cannot talk a
        variance down, only the samples can lower it.

        Raises SurrogateError for fewer than two samples.
        """
        self._count_lone(labels)
        scores = self._score(smashed, labels, generator)
        constant = self.prior_entropy - noise_entropy(self.dimensions, math.sqrt(self.noise_variance))
        bound = scores.nll + constant / self.dimensions
        leakage = bound.detach() * self.dimensions if self.noise_std > 0 else torch.full_like(bound.detach(), math.inf)
        threshold = self.threshold.value()
        loss = bound if threshold is None else self._excess(self.tokens(smashed), scores, threshold)
        return Terms(loss, leakage, intra_class_mse(smashed, labels))

    def fit_loss(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """Negative log-likelihood of each half under the density that the other half predicts, nats per dimension."""
        return self._score(smashed, labels, generator).nll

    def _score(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None) -> Scores:
        """Each half under the density that the other half predicts; the noise is the first thing drawn."""
        halves = divide(labels)
        noise = torch.randn(smashed.shape, generator=generator, device=smashed.device, dtype=smashed.dtype)
        noise = math.sqrt(self.noise_variance) * noise
        noisy = [self.tokens(smashed + noise), *([self.tokens(smashed - noise)] if self.cfg.antithetic else [])]
        mixture, pair = self._predict(self.tokens(smashed), labels, halves, generator)
        joint = torch.stack([self._joint(mixture, pair, tokens[halves.rows.flip(0)]) for tokens in noisy])
        log_density = torch.logsumexp(joint, -1) * halves.present.flip(0).unsqueeze(-1)
        return Scores(-log_density.sum() / (len(noisy) * smashed.numel()), halves, mixture, pair, joint)

    def _predict(
        self,
        tokens: Float[Tensor, "batch position number"],
        labels: Labels,
        halves: Halves,
        generator: torch.Generator | None,
    ) -> tuple[Components, Int[Tensor, "2 half"]]:
        """A mixture for each pair of a half and a class, from that half; and the pair of each sample that it scores."""
        # 1. Mean and variance of each half's tokens at each position; `overall` is one variance for all positions.
        classes, row = present_classes(labels, _room(labels, len(self.class_embedding)))
        support, weight = tokens[halves.rows], halves.present[:, :, None, None]
        count = halves.present.sum(1).view(2, 1, 1)
        centre = (support * weight).sum(1) / count
        within = ((support - centre.unsqueeze(1)).square() * weight).sum(1) / count
        middle = centre.mean(1, keepdim=True)
        overall = (within + (centre - middle).square()).mean(1, keepdim=True).clamp_min(_VARIANCE_FLOOR)
        spread = (count * within + _PRIOR_COUNT * overall) / (count + _PRIOR_COUNT)
        # 2. Slots summarise the tokens, standardised so and told where they are and of which class; padding is masked.
        seen = self.embed((support - middle.unsqueeze(1)) / overall.unsqueeze(1).sqrt()) + self.position
        seen = seen + self.class_embedding[labels[halves.rows]].unsqueeze(2)
        present = halves.present.bool().unsqueeze(-1).expand(seen.shape[:3]) if len(labels) % 2 else None
        slots = self.slots(seen.flatten(1, 2), present if present is None else present.flatten(1, 2), generator)
        # 3. A query for each class and position reads the slots of either half; heads make a mixture of what it reads.
        queries = self.class_embedding[classes].unsqueeze(1) + self.position
        read = self.read(queries.flatten(0, 1).expand(2, -1, -1), slots)
        heads = self.head(read).view(2, len(classes), self.positions, self.components, -1)
        logits, mean, log_variance = heads.split((1, self.token_size, self.token_size), dim=-1)
        # 4. The mixtures are relative to the mean and variance of their class in their half, which the half's shrink.
        pair = row[halves.rows] + len(classes) * torch.arange(2, device=row.device).unsqueeze(1)
        of_half = (part.repeat_interleave(len(classes), 0) for part in (centre, spread))
        centre, spread = (part.unsqueeze(2) for part in _of_classes(support, weight, pair, *of_half))
        prior = Components(
            torch.log_softmax(logits.squeeze(-1), dim=-1).flatten(0, 1),
            centre + spread.sqrt() * mean.flatten(0, 1),
            spread * _clamp(log_variance).exp().flatten(0, 1),
        )
        # 5. One step of EM makes them precise. A half's samples are scored under the mixtures of the other half.
        scored = row[halves.rows.flip(0)] + len(classes) * torch.arange(2, device=row.device).unsqueeze(1)
        return self._refine(prior, pair, support, weight.squeeze(-1)), scored

    def _refine(
        self,
        prior: Components,
        pair: Int[Tensor, "2 half"],
        support: Float[Tensor, "2 half position number"],
        weight: Float[Tensor, "2 half 1"],
    ) -> Components:
        """One step of EM on the support; the prior counts as that many samples of each component."""
        # E: how much of each token belongs to each component of its pair; a padded sample's share is 0.
        deviation = support.unsqueeze(-2) - prior.mean[pair]
        squared = deviation.square()
        variance = prior.variance + _VARIANCE_FLOOR
        norm = prior.log_weight - 0.5 * (math.log(2 * math.pi) + variance.log()).sum(-1)
        joint = norm[pair] - 0.5 * (squared / variance[pair]).sum(-1)
        share = (torch.softmax(joint, -1) * weight.unsqueeze(-1)).flatten(0, 1)
        index, pairs = pair.flatten(), len(prior.mean)

        def total(values: Tensor) -> Tensor:
            return values.new_zeros(pairs, *values.shape[1:]).index_add(0, index, values)

        # Sums over each pair's samples, about the prior's means: large squares would drown the differences.
        count = total(share)
        first = total(share.unsqueeze(-1) * deviation.flatten(0, 1))
        second = total(share.unsqueeze(-1) * squared.flatten(0, 1))
        # M: the prior's weights, means and variances count as so many more samples each; how many is learned.
        of_weight, of_mean, of_variance = (_PRIOR_COUNT * self.log_counts.clamp(-8, 8).exp()).unbind()
        mass = of_weight * prior.log_weight.exp() + count + _WEIGHT_FLOOR
        count = count.unsqueeze(-1)
        shift = first / (of_mean + count)
        scatter = (second - 2 * shift * first + count * shift.square()).clamp_min(0)
        return Components(
            (mass / mass.sum(-1, keepdim=True)).log(),
            prior.mean + shift,
            (of_variance * prior.variance + scatter) / (of_variance + count),
        )

    def _joint(
        self, mixture: Components, pair: Int[Tensor, "2 half"], scored: Float[Tensor, "2 half position number"]
    ) -> Float[Tensor, "2 half position component"]:
        """log of weight × density of each component, convolved with the noise, at the scored tokens."""
        variance = mixture.variance + self.noise_variance
        norm = mixture.log_weight - 0.5 * (math.log(2 * math.pi) + variance.log()).sum(-1)
        deviation = scored.unsqueeze(-2) - mixture.mean[pair]
        return norm[pair] - 0.5 * (deviation.square() / variance[pair]).sum(-1)

    def _excess(
        self, tokens: Float[Tensor, "batch position number"], scores: Scores, threshold: float
    ) -> Float[Tensor, ""]:
        """What the variances of the scored samples have above the threshold, nats per dimension."""
        _, halves, mixture, pair, joint = scores
        share = (torch.softmax(joint.detach(), -1).mean(0) * halves.present.flip(0)[:, :, None, None]).flatten(0, 1)
        scored = tokens[halves.rows.flip(0)]
        squared = (scored.unsqueeze(-2) - mixture.mean[pair]).square().flatten(0, 1)
        index = pair.flatten()
        count = share.new_zeros(mixture.log_weight.shape).index_add(0, index, share)
        sums = torch.zeros_like(mixture.mean).index_add(0, index, share.unsqueeze(-1) * squared)
        variance = sums / count.clamp_min(torch.finfo(count.dtype).tiny).unsqueeze(-1)
        part = count / (len(tokens) * self.positions)
        return (part * 0.5 * hinge(variance, threshold, self.noise_variance).mean(-1)).sum()


def divide(labels: Labels) -> Halves:
    """Deal the samples of each class in turn to two halves. Raises SurrogateError for fewer than two samples."""
    if len(labels) < 2:
        raise SurrogateError(
            f"the attention surrogate scores one half of a batch under the other and needs two samples; found "
            f"{len(labels)}. Use a larger batch_size."
        )
    order = torch.argsort(labels, stable=True)
    present = torch.ones(len(labels) + len(labels) % 2, device=labels.device)
    if len(labels) % 2:
        order, present[-1] = torch.cat([order, order[:1]]), 0
    return Halves(order.view(-1, 2).T, present.view(-1, 2).T)


def present_classes(labels: Labels, room: int) -> tuple[Int[Tensor, " room"], Labels]:
    """The classes that are present, in a list with room for so many, filled up with class 0; where each sample's is."""
    row, _ = class_rows(labels)
    return labels.new_zeros(room).scatter(0, row, labels), row


def _room(labels: Labels, classes: int) -> int:
    """How many classes the batch has or, where asking would be to wait for the device, how many it may have.

    What is predicted for a class without samples is neither scored nor counted.
    """
    return int(class_rows(labels)[0].max()) + 1 if labels.device.type == "cpu" else min(len(labels), classes)


def _of_classes(
    support: Float[Tensor, "2 half position number"],
    weight: Float[Tensor, "2 half 1 1"],
    pair: Int[Tensor, "2 half"],
    mean: Float[Tensor, "pair position number"],
    variance: Float[Tensor, "pair position number"],
) -> tuple[Float[Tensor, "pair position number"], Float[Tensor, "pair position number"]]:
    """Mean and variance of each pair's tokens; those given, of the whole half, count as _PRIOR_COUNT more samples.

    Components that start on all sides of their own class's centre divide its modes between them. About a centre of all
    classes one component may win all of a class that is far from it, and EM does not leave such an optimum.
    """
    index = pair.flatten()
    count = weight.new_full((len(mean), 1, 1), _PRIOR_COUNT).index_add(0, index, weight.flatten(0, 1))

    def shrunk(prior: Tensor, values: Tensor) -> Tensor:
        return (_PRIOR_COUNT * prior).index_add(0, index, (values * weight).flatten(0, 1)) / count

    mean = shrunk(mean, support)
    return mean, shrunk(variance, (support - mean[pair]).square())


def _clamp(log_variance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bring into _LOG_VARIANCE smoothly: nearly the identity inside, and a gradient everywhere."""
    low, high = _LOG_VARIANCE
    raised = low + nn.functional.softplus(log_variance - low)
    return high - nn.functional.softplus(high - raised)
