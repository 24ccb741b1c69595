"""Entropy surrogates: differentiable terms that lower the leakage I(x; z)."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import AttentionSurrogate, GmmSurrogate, NoSurrogate
from cem.mixture import ClassMixture
from cem.surrogates.attention import SlotCrossAttentionCEM, SurrogateError, check_size, initialise
from cem.surrogates.attention_mixture import MixtureAttention
from cem.surrogates.base import MONITORS, Surrogate, Terms
from cem.surrogates.enhanced_variance import EnhancedVariance
from cem.surrogates.gmm import Gmm

__all__ = ["MONITORS", "Surrogate", "SurrogateError", "Terms", "make_surrogate"]


def make_surrogate(
    cfg: NoSurrogate | GmmSurrogate | AttentionSurrogate,
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
    match cfg:
        case NoSurrogate():
            return Surrogate()
        case GmmSurrogate():
            return Gmm(cfg, smashed_shape, prior, noise_std, num_samples, mixture, seed)
        case AttentionSurrogate():
            kind: type[SlotCrossAttentionCEM] = MixtureAttention if cfg.statistic == "mixture" else EnhancedVariance
            with torch.device("meta"):  # no draw from torch's global generator, and no memory before the size is known
                module = kind(cfg, smashed_shape, prior, noise_std)
            check_size(module, smashed_shape)
            module.to_empty(device="cpu")
            initialise(module, seed)
            return module
