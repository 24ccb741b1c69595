"""Several densities of z: the one that does best on `val` is the one that a leakage is measured with."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cem.config import MixtureFit
from cem.defenses import Channel
from cem.mixture.background import WEIGHT, Background
from cem.mixture.fit import fit_samples
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Chunks, Samples

_DIAGONAL = (1, 3, 8)  # components
_LOW_RANK = ((1, 8), (1, 32), (1, 128), (2, 32), (3, 8), (3, 32))  # components and rank
_MOST_NUMBERS = 1 << 22  # that a low-rank part is made of: larger ones take minutes


def family_fits(counts: Int[Tensor, " cls"], dimensions: int) -> list[MixtureFit]:
    """The fits of a family, beside the one that the study names: those of a fixed list that suit the data.

    Left out are ranks for which a class has too few images, and parts that would take too long; a rank is d at most.
    """
    fits = [MixtureFit(components=k, covariance="diag", fit="em") for k in _DIAGONAL]
    enough = int(counts.double().mean())
    for k, rank in _LOW_RANK:
        low_rank = MixtureFit(components=k, covariance="pca", rank=min(rank, dimensions), fit="em")
        if k * low_rank.rank < max(enough, 2) and len(counts) * k * low_rank.rank * dimensions <= _MOST_NUMBERS:
            fits.append(low_rank)
    return fits


@dataclass(frozen=True)
class Scored:
    """Images that are scored: how to read clean ẑ and labels in chunks, and all labels [n]."""

    chunks: Chunks
    labels: Int[Tensor, " n"]

    def shares(self, classes: int) -> Float[Tensor, " cls"]:
        """Share of each class."""
        return torch.bincount(self.labels, minlength=classes).double() / len(self.labels)


@dataclass(frozen=True)
class Family:
    """Densities q(z) = (1 − w) Σ_y π_y q(z|y) + w b(z), by name: a mixture for each class, and a broad b.

    None has a parameter that saw the images that are scored, so each bounds I(x; ẑ + ε) from above, whatever the class
    shares π are. No label is used: where the noise confuses classes, that is not counted as leaked.
    """

    members: dict[str, ClassMixture]
    background: Background

    def log_density(
        self, member: str, z: Float[Tensor, "n d"], noise_std: float, class_prior: Float[Tensor, " cls"]
    ) -> Float[Tensor, " n"]:
        """log q(z) in nats per image, in float64; σ > 0."""
        inside = self.members[member].log_densities(z, noise_std) + class_prior.double().log()
        outside = self.background.log_density(z, noise_std)
        return torch.logaddexp(math.log1p(-WEIGHT) + inside.logsumexp(1), math.log(WEIGHT) + outside)

    def information(
        self, members: Iterable[str], scored: Scored, channel: Channel, generator: torch.Generator
    ) -> dict[str, Float[Tensor, " n"]]:
        """log p(z|x) − log q(z) of each image under each of the members, nats: its mean bounds I(x; z) from above.

        z is drawn here, the same for all members. There is noise. The population is that which the images stand for:
        each class as they are, and in the share that it has of them. E log p(z|x) = −h(z|ẑ) needs no draw; drawn with
        z, it takes away what the noise's length adds to both, which is most of the error where little is leaked. Noise
        that is not Gaussian is so in q, with the same variance: a bound all the same, as of any density.
        """
        found: dict[str, list[Tensor]] = {name: [] for name in members}
        class_prior = scored.shares(len(next(iter(self.members.values())).class_prior))
        for smashed, _ in scored.chunks():
            z, log_channel = channel.observe(smashed, channel.unit(smashed, generator))
            for name, parts in found.items():
                parts.append(log_channel - self.log_density(name, z, channel.noise_std, class_prior))
        return {name: torch.cat(parts) for name, parts in found.items()}


def fit_family(
    whole: Samples,
    some: Samples,
    configured: MixtureFit,
    generator: torch.Generator,
    noise_std: float,
    scored_std: float,
) -> Family:
    """Fit the members: `configured` to all samples, the others to `some` (the same, where they can be held).

    `configured` is fitted first, for noise of `noise_std`: it is the mixture of these settings whatever else belongs to
    the family. scored_std: the σ above zero that the others are fitted for.
    """
    members = {configured.label: fit_samples(whole, configured, generator, noise_std=noise_std)}
    for fit in family_fits(some.counts, some.centre.shape[1]):
        if fit.label not in members:
            members[fit.label] = fit_samples(some, fit, generator, noise_std=scored_std)
    return Family(members, Background.of(whole.chunks()))


def least(scores: dict[str, Float[Tensor, " n"]]) -> str:
    """The name with the least mean; the first of equals."""
    return min(scores, key=lambda name: float(scores[name].mean()))
