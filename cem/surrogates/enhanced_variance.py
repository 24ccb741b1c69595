"""The statistic of the first attention version, kept so that it can be compared."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cem.surrogates.attention_base import SlotCrossAttentionCEM
from cem.surrogates.base import Terms, class_rows, intra_class_mse
from cem.surrogates.thresholds import hinge
from cem.types import Labels, Smashed

_OFFSET = 1e-3  # the first version's threshold is τσ² + this


class EnhancedVariance(SlotCrossAttentionCEM):
    """Variance of a class's samples after they have read the slots of their class.

    The loss is relu(log(v + σ²) − log(thr + σ²)) of the variance v of each class after reading, classes weighted by
    their share of the batch; a class with one sample has v = 0 and is counted as lone. Its leakage is the capacity
    ½ log(1 + v/σ²) of a Gaussian with that variance in every dimension of ẑ, plus H(y), nats for one image; the loss
    without a threshold is that capacity per dimension. **No bound**: the module computes what it is judged by, and can
    make it small without the encoder. Source: docs/theory.md, "The enhanced variance".
    """

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch; `generator` draws Gaussian slots, if the module has them."""
        self._count_lone(labels)
        return self._terms(smashed, labels, generator)

    def _terms(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None) -> Terms:
        variance, share = self._class_variances(smashed, labels, generator)
        threshold = self.threshold.value()
        if threshold is None:
            loss = (share * 0.5 * torch.log1p(variance / self.noise_variance).mean(1)).sum()
        else:
            loss = (share * hinge(variance, threshold + _OFFSET, self.noise_variance).mean(1)).sum()
        if self.noise_std > 0:
            capacity = (share * 0.5 * torch.log1p(variance.detach() / self.noise_std**2).mean(1)).sum()
            leakage = capacity * self.dimensions + self.prior_entropy
        else:
            leakage = torch.full_like(loss.detach(), math.inf)
        return Terms(loss, leakage, intra_class_mse(smashed, labels))

    def fit_loss(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Float[Tensor, ""]:
        """The loss itself: this module has nothing else to be fitted to, which is what is wrong with it."""
        return self._terms(smashed, labels, generator).loss

    def _class_variances(
        self, smashed: Smashed, labels: Labels, generator: torch.Generator | None
    ) -> tuple[Float[Tensor, "present feature"], Float[Tensor, " present"]]:
        """Variance of the enhanced tokens of each class that is present, and the class's share of the batch."""
        tokens = self.embed(self.tokens(smashed))
        present, sets, counts = _by_class(tokens, labels)
        merged = sets.flatten(1, 2)
        mask = present.unsqueeze(-1).expand(sets.shape[:3]).flatten(1, 2)
        enhanced = self.read(merged, self.slots(merged, mask, generator)).view(sets.shape).flatten(2)
        weight, size = present.unsqueeze(-1).to(tokens.dtype), counts.view(-1, 1)
        mean = (enhanced * weight).sum(1) / size
        variance = ((enhanced - mean.unsqueeze(1)).square() * weight).sum(1) / size
        return variance, counts / len(labels)


def _by_class(
    tokens: Float[Tensor, "batch position width"], labels: Labels
) -> tuple[Bool[Tensor, "cls most"], Float[Tensor, "cls most position width"], Tensor]:
    """Samples of each class that is present in a row, padded to the largest class; where they are; how many."""
    row, counts = class_rows(labels)
    classes, most = torch.stack([row.max() + 1, counts.max()]).tolist()  # the one wait for the device
    counts = counts[:classes]
    order = torch.argsort(row, stable=True)
    place = torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row[order]]
    where = (row[order], place)
    present = torch.zeros(classes, most, dtype=torch.bool, device=row.device)
    present = present.index_put(where, torch.ones_like(place, dtype=torch.bool))
    sets = tokens.new_zeros(*present.shape, *tokens.shape[1:]).index_put(where, tokens[order])
    return present, sets, counts
