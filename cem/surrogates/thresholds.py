"""Where the pressure on a variance stops."""

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import Threshold


def threshold_value(cfg: Threshold, noise_variance: float) -> float | None:
    """The variance below which the pressure ends, in units of z squared; None when it never does."""
    match cfg.kind:
        case "none":
            return None
        case "coupled":
            return cfg.tau * noise_variance
        case "fixed":
            return cfg.value


def hinge(variance: Float[Tensor, "*shape"], threshold: float, offset: float) -> Float[Tensor, "*shape"]:
    """relu(log(v + offset) − log(threshold + offset)), nats; offset is σ², or γ of the released code.

    Source: REFERENCE §2, log form.
    """
    ceiling = torch.log(variance.new_tensor(threshold + offset))
    return torch.relu(torch.log(variance + offset) - ceiling)
