"""What leaves the client, as a channel: the law of z given the encoder's output ẑ."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from cem.types import Smashed


@dataclass(frozen=True)
class NotApplicable:
    """A channel does not state what was asked, and why."""

    reason: str


class Observed(NamedTuple):
    """z, and log p(z|ẑ) of each image in nats; both in float64.

    The density is taken from the noise itself, not from a difference of z and ẑ.
    """

    z: Float[Tensor, "n d"]
    log_density: Float[Tensor, " n"]


@runtime_checkable
class Channel(Protocol):
    """p(z|ẑ): the law of what the noise makes of ẑ. Rows are images.

    Whoever needs its density, entropy or noise asks it, and says "not applicable" where it does not state it. Noise is
    drawn at a `unit` size, with one law for every ẑ and every size, so that channels of one law can be compared under
    the same draws.
    """

    @property
    def noise_std(self) -> float:
        """Root mean square of the noise in a number of z, in units of z; 0: z = ẑ."""
        ...

    @property
    def gaussian_std(self) -> float | NotApplicable:
        """σ where z = ẑ + N(0, σ²I), which may be 0."""
        ...

    @property
    def white_std(self) -> float | NotApplicable:
        """σ where the noise has mean 0 and covariance σ²I and does not depend on ẑ: what a linear estimate sees."""
        ...

    def stds(self, clean: Smashed) -> Smashed:
        """Standard deviation of the noise in each number of z, for each of these ẑ, in units of z."""
        ...

    def unit(self, clean: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
        """Noise of the unit size for each of these ẑ. The generator is on their device."""
        ...

    def send(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        """z for these ẑ."""
        ...

    def observe(self, clean: Float[Tensor, "n d"], unit: Float[Tensor, "n d"]) -> Observed:
        """z with this noise, and how likely it was. There is noise."""
        ...

    def log_densities(self, z: Float[Tensor, "n d"], clean: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
        """log p(z|ẑ) of each z for each ẑ, in nats, in float64. There is noise."""
        ...

    def entropy(self, clean: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        """h(z|ẑ) of each ẑ, in nats, in float64; −inf without noise."""
        ...

    def sized(self, noise_std: float) -> "Channel":
        """The same law with noise of another size."""
        ...

    def mean_of(self, n: int) -> "Channel | NotApplicable":
        """The channel of the mean of n looks at one ẑ."""
        ...
