"""The interface of all entropy surrogates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem import CemError
from cem.config import SurrogateSettings
from cem.mixture import ClassMixture
from cem.types import Labels, Smashed

# Stands in for σ² in a loss, never in a leakage, when the noise is (nearly) absent: keeps log(v + σ²) finite.
NOISE_VARIANCE_FLOOR = 1e-6
# What `Surrogate.monitor` may say, a column of the history each.
MONITORS = (
    "threshold",
    "error_threshold",
    "attention_gate",
    "feed_forward_gate",
    "slot_usage_entropy",
    "lone_samples",
)


class SurrogateError(CemError, ValueError):
    """A surrogate that cannot be made, or a batch that it cannot judge."""


@dataclass(frozen=True)
class Given:
    """What a surrogate is made for, beside its settings.

    smashed_shape: channels, height, width of ẑ. class_prior: share of each class in the population. noise_std: σ at
    first, in units of z: see `Surrogate.take_noise`. num_samples, mixture: what it starts from, where its settings ask
    for a mixture. seed: of its weights.
    """

    smashed_shape: tuple[int, int, int]
    class_prior: Float[Tensor, " cls"]
    noise_std: float
    num_samples: int | None = None
    mixture: ClassMixture | None = None
    seed: int = 0


@dataclass(frozen=True)
class Terms:
    """What a surrogate says of a batch; to iterate over it gives the terms that it has, in this order.

    loss: what the encoder minimises, nats per dimension of ẑ (of x, where an error of x is measured).
    leakage_nats: the upper bound on I(x; z), nats for one image, H(y) included; inf at σ = 0. None: it has none.
    intra_class_mse: mean squared distance to the class mean of the batch, per dimension.
    conditional_nats: minus an upper bound on h(x|z), nats for one image: I(x; z) is at least h(x) plus this, and h(x)
    is the same whatever the encoder. None: it has none.
    """

    loss: Float[Tensor, ""]
    leakage_nats: Float[Tensor, ""] | None
    intra_class_mse: Float[Tensor, ""]
    conditional_nats: Float[Tensor, ""] | None = None

    def __iter__(self) -> Iterator[Tensor]:
        return (value for value in vars(self).values() if value is not None)


class Numbers(nn.Module):
    """A module with numbers that a checkpoint holds. As buffers they would be on a GPU, and reading them a wait for it.

    numbers: names of the attributes.
    """

    numbers: ClassVar[tuple[str, ...]] = ()

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination |= {prefix + name: torch.tensor(getattr(self, name)) for name in self.numbers}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        *others: list[str],
    ) -> None:
        for name in self.numbers:
            value = state_dict.pop(prefix + name, None)
            if value is None:
                missing_keys.append(prefix + name)
            else:
                setattr(self, name, value.item())
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys, *others)


class Surrogate(Numbers):
    """Base of the surrogates; by itself the surrogate `none`, which asks nothing of the encoder.

    The implementation of a member of the family is called with its settings and what is `Given`, and gives one of
    these, on the CPU. uses_images: whether `forward` and `fit_loss` take the batch's images, as `images`.
    """

    uses_images: bool = False

    def measure_threshold(self, smashed: Smashed, labels: Labels) -> None:
        """Take a quantile threshold from the clean ẑ of all private images, once, when the shared warm-up is over."""

    def take_noise(self, noise_std: float) -> None:
        """σ as it is now, before each batch and each look at the private ẑ: the noise of a defence may learn its size.

        Nothing goes from the surrogate to that noise.
        """

    def begin_epoch(self, progress: float) -> None:
        """A new epoch: 0 for the first after the shared warm-up, 1 for the last. Counters of `monitor` start anew."""

    def refit(self, smashed: Smashed, labels: Labels) -> None:
        """Fit again to the clean ẑ of all private images, between epochs."""

    def forward(self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None) -> Terms:
        """Terms of a batch of clean ẑ. Where a density is scored, `generator` draws the noise it is scored under."""
        zero = smashed.new_zeros(())
        return Terms(zero, zero, intra_class_mse(smashed, labels))

    def fit_loss(
        self, smashed: Smashed, labels: Labels, generator: torch.Generator | None = None
    ) -> Float[Tensor, ""] | None:
        """What the surrogate's own parameters minimise, nats per dimension of ẑ; None when it has none."""
        return None

    def monitor(self) -> dict[str, float]:
        """How the surrogate does in the epoch under way, by names of MONITORS; what it has not, it leaves out."""
        return {}


def make_none(cfg: SurrogateSettings, given: Given) -> Surrogate:
    """The surrogate that asks nothing."""
    return Surrogate()


def intra_class_mse(smashed: Smashed, labels: Labels) -> Float[Tensor, ""]:
    """Mean over samples and dimensions of (ẑ − mean of its class in the batch)², in units of z squared; no gradient."""
    flat = smashed.detach().flatten(1)
    row, counts = class_rows(labels)
    return (flat - class_means(flat, row, counts)[row]).square().mean()


def class_rows(labels: Labels) -> tuple[Labels, Labels]:
    """For each sample the rank of its class among those present; and how many samples each rank has, 0 beyond the last.

    As `torch.unique` would say it, but in a length that is known beforehand: a GPU need not be waited for.
    """
    ordered, order = torch.sort(labels, stable=True)
    rank = torch.zeros_like(labels)
    rank[1:] = (ordered[1:] != ordered[:-1]).cumsum(0)
    row = torch.zeros_like(labels).scatter(0, order, rank)
    return row, torch.zeros_like(labels).index_add(0, row, torch.ones_like(labels))


def class_means(
    flat: Float[Tensor, "batch d"], row: Int[Tensor, " batch"], counts: Int[Tensor, " cls"]
) -> Float[Tensor, "cls d"]:
    """Mean of the samples of each row; zero where there are none."""
    sums = flat.new_zeros(len(counts), flat.shape[1]).index_add(0, row, flat)
    return sums / counts.clamp_min(1).unsqueeze(1)
