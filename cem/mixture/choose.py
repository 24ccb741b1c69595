"""How many components a class has."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch

from cem.config import MixtureFit
from cem.mixture.counts import components_of
from cem.mixture.estimate import estimate
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Chunks, MixtureError, Samples

CANDIDATES = range(1, 9)
HELD_OUT_SHARE = 0.2


def choose(
    samples: Samples,
    settings: MixtureFit,
    generator: torch.Generator,
    *,
    criterion: Literal["held_out", "bic"] = "held_out",
    candidates: Sequence[int] = CANDIDATES,
) -> int:
    """The number of components, one for all classes, with the best score; all classes are fitted together.

    held_out: log-likelihood of a fifth of each class, drawn with `generator`, under a fit to the rest.
    bic: Σ_c (2 log L_c − p log n_c), p the free parameters of a class. Source: Schwarz 1978.
    A candidate that no class has enough samples for is not tried. Raises MixtureError when that leaves none.
    """
    score: Callable[[ClassMixture], float]
    if criterion == "held_out":
        # At least one where a class has two.
        many = torch.where(samples.counts > 1, (HELD_OUT_SHARE * samples.counts).long().clamp_min(1), 0)
        fitted, held = samples.split(samples.draw(many, generator))

        def score(mixture: ClassMixture) -> float:
            return _log_likelihood(mixture, held)
    else:
        fitted = samples

        def score(mixture: ClassMixture) -> float:
            price = _parameters(mixture, settings.covariance) * float(samples.counts.double().log().sum())
            return 2 * _log_likelihood(mixture, samples.chunks) - price

    most = int(components_of(fitted.counts, max(candidates)).max())
    possible = [number for number in candidates if number <= most]
    if not possible:
        raise MixtureError(
            f"no number of components in {list(candidates)} can be tried: the largest class has "
            f"{int(fitted.counts.max())} samples to fit to. Give a number of components or use more private images."
        )
    scores = [score(estimate(fitted, settings, number, generator)) for number in possible]
    return possible[max(range(len(possible)), key=scores.__getitem__)]


def _parameters(mixture: ClassMixture, covariance: str) -> int:
    """Free parameters of one class."""
    _, components, dimensions = mixture.means.shape
    count = components - 1 + components * (dimensions + (1 if covariance == "spherical" else dimensions))
    if mixture.basis is not None:
        rank = mixture.basis.shape[2]
        count += components * rank + dimensions * rank - rank * (rank + 1) // 2
    return count


def _log_likelihood(mixture: ClassMixture, chunks: Chunks) -> float:
    """Of all samples, in nats."""
    return sum(float(mixture.log_density(smashed, labels).double().sum()) for smashed, labels in chunks())
