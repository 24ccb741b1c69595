"""Where the pressure on a variance stops."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import Threshold
from cem.surrogates.base import Numbers, SurrogateError, class_means
from cem.types import Labels

_UNKNOWN = -1.0  # a quantile that was not measured yet


class VarianceThreshold(Numbers):
    """The variance at which the pressure ends, in units of z squared; never below the setting's floor.

    none: it never ends. coupled: τσ² (published). fixed: a value. quantile: of the variances within a class, over
    classes and dimensions, that `measure` finds. schedule: from start to end as `progress` goes from 0 to 1.
    Source: docs/theory.md, "Thresholds".
    """

    numbers = ("progress", "measured")

    def __init__(self, cfg: Threshold, noise_std: float) -> None:
        super().__init__()
        self.cfg, self.noise_std = cfg, noise_std
        self.reset()

    def reset(self) -> None:
        """Before the first epoch: nothing is measured yet."""
        self.progress, self.measured = 0.0, _UNKNOWN

    def begin_epoch(self, progress: float) -> None:
        """A new epoch: 0 for the first after the shared warm-up, 1 for the last."""
        self.progress = torch.tensor(progress).item()  # in the precision of the model

    def measure(self, flat: Float[Tensor, "n d"], labels: Labels) -> None:
        """Take the quantile of the variances of these ẑ within their classes. Only a `quantile` threshold does.

        Raises SurrogateError where no class has two of them.
        """
        if self.cfg.kind != "quantile":
            return
        _, row, counts = torch.unique(labels, return_inverse=True, return_counts=True)
        deviation = (flat - class_means(flat, row, counts)[row]).square()
        variance = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, row, deviation) / counts.unsqueeze(1)
        several = variance[counts > 1].flatten().sort().values  # torch.quantile refuses more than 2²⁴ values
        if not len(several):
            raise SurrogateError(
                "threshold quantile: expected a class with two private images or more, of whose ẑ there is a variance; "
                f"found {len(counts)} classes of one image. Use kind fixed with a value, or more images."
            )
        self.measured = float(several[int(self.cfg.quantile * (len(several) - 1))])

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
                value = self.measured
                if value == _UNKNOWN:
                    raise RuntimeError("the quantile threshold is not known yet: call measure_threshold first")
            case "schedule":
                part = self.progress if self.cfg.shape == "linear" else 0.5 * (1 - math.cos(math.pi * self.progress))
                value = self.cfg.start + part * (self.cfg.end - self.cfg.start)
        return max(value, self.cfg.floor)


def hinge(variance: Float[Tensor, "*shape"], threshold: float, offset: float) -> Float[Tensor, "*shape"]:
    """relu(log(v + offset) − log(threshold + offset)), nats; offset is σ², or γ of the released code.

    Source: docs/theory.md, "Thresholds" and "The released heuristic".
    """
    return torch.relu(torch.log(variance + offset) - math.log(threshold + offset))
