"""The attention surrogate: the statistic that its settings name, with its first weights."""

import torch

from cem.config import AttentionSurrogate
from cem.models.init import allocate
from cem.surrogates.attention_base import SlotCrossAttentionCEM, check_size, initialise
from cem.surrogates.attention_conditional import make_conditional
from cem.surrogates.attention_mixture import MixtureAttention
from cem.surrogates.base import Given, Surrogate
from cem.surrogates.enhanced_variance import EnhancedVariance

STATISTICS: dict[str, type[SlotCrossAttentionCEM]] = {
    "mixture": MixtureAttention,
    "enhanced_variance": EnhancedVariance,
}


def make_attention(cfg: AttentionSurrogate, given: Given) -> Surrogate:
    """The module that settings describe. Raises SurrogateError when it is too large, or its heads cannot share z."""
    if cfg.statistic == "conditional":
        return make_conditional(cfg, given)
    with torch.device("meta"):  # no draw from torch's global generator, and no memory before the size is known
        module = STATISTICS[cfg.statistic](cfg, given.smashed_shape, given.class_prior, given.noise_std)
    check_size(module, given.smashed_shape)
    allocate(module, "cpu")
    initialise(module, given.seed)
    return module
