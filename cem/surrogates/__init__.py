"""Entropy surrogates: differentiable terms that lower the leakage I(x; z)."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import SurrogateSettings
from cem.mixture import ClassMixture
from cem.surrogates.base import MONITORS, Given, Surrogate, SurrogateError, Terms

__all__ = ["MONITORS", "Given", "Surrogate", "SurrogateError", "Terms", "make_surrogate"]


def make_surrogate(
    cfg: SurrogateSettings,
    *,
    smashed_shape: tuple[int, int, int],
    num_classes: int,
    noise_std: float,
    class_prior: Float[Tensor, " cls"] | None = None,
    num_samples: int | None = None,
    mixture: ClassMixture | None = None,
    seed: int = 0,
) -> Surrogate:
    """The surrogate a run's settings ask for, on the CPU.

    smashed_shape: channels, height, width of ẑ. noise_std: σ, in units of z. class_prior: share of each class in the
    population (absent: uniform). mixture, num_samples: what a gmm surrogate starts from, and how many samples it was
    fitted to. Raises SurrogateError for an attention module that is too large or whose flat tokens its heads cannot
    share, ValueError for a mixture without its number of samples.
    """
    prior = class_prior if class_prior is not None else torch.full((num_classes,), 1 / num_classes)
    made: Surrogate = cfg.load()(cfg, Given(smashed_shape, prior, noise_std, num_samples, mixture, seed))
    return made
