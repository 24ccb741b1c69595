"""Where the pressure on a variance stops."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cem.config import Threshold
from cem.surrogates.base import class_means
from cem.types import Labels

_UNKNOWN = -1.0  # a quantile that was not measured yet


class VarianceThreshold(nn.Module):
    """The variance at which the pressure ends, in units of z squared; never below the setting's floor.

    none: it never ends. coupled: τσ² (published). fixed: a value. quantile: of the variances within a class, over
    classes and dimensions, that `measure` finds. schedule: from start to end as `progress` goes from 0 to 1.
    Source: docs/theory.md, "Thresholds".
    """

    progress: Tensor
    measured: Tensor

    def __init__(self, cfg: Threshold, noise_std: float) -> None:
        super().__init__()
        self.cfg, self.noise_std = cfg, noise_std
        self.register_buffer("progress", torch.empty(()))
        self.register_buffer("measured", torch.empty(()))
        self.reset()

    def reset(self) -> None:
        """Before the first epoch: nothing is measured yet."""
        self.progress.zero_()
        self.measured.fill_(_UNKNOWN)

    def measure(self, flat: Float[Tensor, "n d"], labels: Labels) -> None:
        """Take the quantile of the variances of these ẑ within their classes. Only a `quantile` threshold does."""
        if self.cfg.kind != "quantile":
            return
        _, row, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        deviation = (flat - class_means(flat, labels)[0][row]).square()
        variance = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, row, deviation) / counts.unsqueeze(1)
        several = variance[counts > 1].flatten().sort().values  # torch.quantile refuses more than 2²⁴ values
        self.measured.fill_(several[int(self.cfg.quantile * (len(several) - 1))])

    def value(self) -> float | None:
        """The threshold now; None for kind none.

        Raises RuntimeError when a quantile was not measured yet.
        """
        match self.cfg.kind:
            case "none":
                return None
            case "coupled":
                value = self.cfg.tau * self.noise_std**2
            case "fixed":
                value = self.cfg.value
            case "quantile":
                value = float(self.measured)
                if value == _UNKNOWN:
                    raise RuntimeError("the quantile threshold is not known yet: call measure_threshold first")
            case "schedule":
                progress = float(self.progress)
                part = progress if self.cfg.shape == "linear" else 0.5 * (1 - math.cos(math.pi * progress))
                value = self.cfg.start + part * (self.cfg.end - self.cfg.start)
        return max(value, self.cfg.floor)


def hinge(variance: Float[Tensor, "*shape"], threshold: float, offset: float) -> Float[Tensor, "*shape"]:
    """relu(log(v + offset) − log(threshold + offset)), nats; offset is σ², or γ of the released code.

    Source: docs/theory.md, "Thresholds" and "The released heuristic".
    """
    return torch.relu(torch.log(variance + offset) - math.log(threshold + offset))
