"""How many components a class has."""

import torch

from cem.config import MixtureFit
from cem.mixture.counts import components_of
from cem.mixture.estimate import estimate
from cem.mixture.model import ClassMixture
from cem.mixture.samples import Chunks, Samples

MOST = 8  # components that are tried
HELD_OUT_SHARE = 0.2


def choose(samples: Samples, settings: MixtureFit, generator: torch.Generator) -> int:
    """The number of components, one for all classes, that explains samples it was not fitted to best.

    Score: the log-likelihood of a fifth of each class, drawn with `generator`, under a fit to the rest. All classes are
    fitted together; a number that no class has enough samples for is not tried. A class of one sample holds none out.
    """
    many = torch.where(samples.counts > 1, (HELD_OUT_SHARE * samples.counts).long().clamp_min(1), 0)
    fitted, held = samples.split(samples.draw(many, generator))
    possible = range(1, 1 + int(components_of(fitted.counts, MOST).max()))
    scores = [_log_likelihood(estimate(fitted, settings, number, generator), held) for number in possible]
    return possible[max(range(len(possible)), key=scores.__getitem__)]


def _log_likelihood(mixture: ClassMixture, chunks: Chunks) -> float:
    """Of all samples, in nats."""
    return sum(float(mixture.log_density(smashed, labels).double().sum()) for smashed, labels in chunks())
