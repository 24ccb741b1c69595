"""Two surrogates at once: one that bounds the leakage from above, one that bounds it from below."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import PairSurrogate
from cem.surrogates.attention_conditional import ConditionalEntropy
from cem.surrogates.base import Given, Surrogate, Terms
from cem.types import Images, Labels, Smashed


class Pair(Surrogate):
    """The sum of both losses, each times its own weight; each part keeps its bound, its state and its own fit."""

    uses_images = True

    def __init__(self, cfg: PairSurrogate, given: Given) -> None:
        super().__init__()
        self.cfg = cfg
        self.upper: Surrogate = cfg.upper.load()(cfg.upper, given)
        self.lower: ConditionalEntropy = cfg.lower.load()(cfg.lower, given)

    def take_noise(self, noise_std: float) -> None:
        """Of both."""
        self.upper.take_noise(noise_std)
        self.lower.take_noise(noise_std)

    def measure_threshold(self, smashed: Smashed, labels: Labels) -> None:
        """Each takes its own."""
        self.upper.measure_threshold(smashed, labels)
        self.lower.measure_threshold(smashed, labels)

    def begin_epoch(self, progress: float) -> None:
        """A new epoch for both."""
        self.upper.begin_epoch(progress)
        self.lower.begin_epoch(progress)

    def refit(self, smashed: Smashed, labels: Labels) -> None:
        """Of the one that is fitted between epochs."""
        self.upper.refit(smashed, labels)

    def monitor(self) -> dict[str, float]:
        """What both have to say; no name is of both."""
        return self.upper.monitor() | self.lower.monitor()

    def forward(
        self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None, images: Images | None = None
    ) -> Terms:
        """Terms of a batch: the leakage of the upper bound, the conditional entropy of the lower one."""
        upper: Terms = self.upper(smashed, labels, generator)
        lower: Terms = self.lower(smashed, labels, generator, images)
        loss = self.cfg.upper.weight * upper.loss + self.cfg.lower.weight * lower.loss
        return Terms(loss, upper.leakage_nats, upper.intra_class_mse, lower.conditional_nats)

    def fit_loss(
        self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None, images: Images | None = None
    ) -> Float[Tensor, ""] | None:
        """The sum of what those minimise that are fitted as the pair is: they share no parameter."""
        found = []
        if self.cfg.upper.fitted_by == self.cfg.fitted_by:
            found.append(self.upper.fit_loss(smashed, labels, generator))
        if self.cfg.lower.fitted_by == self.cfg.fitted_by:
            found.append(self.lower.fit_loss(smashed, labels, generator, images))
        terms = [term for term in found if term is not None]
        return sum(terms[1:], terms[0]) if terms else None
