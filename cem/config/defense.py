"""The defences: what acts on z before it leaves the client, or on the encoder's objective."""

from typing import Annotated, Literal

from pydantic import Field

from cem.config.base import Settings


class Dropout(Settings):
    """Each value of z is set to zero with probability `rate`, without rescaling, in training and at inference."""

    kind: Literal["dropout"] = "dropout"
    rate: float = Field(0.2, gt=0, lt=1, description="probability of zero")

    @property
    def label(self) -> str:
        return f"dropout{self.rate:g}"


class TopK(Settings):
    """The smallest `fraction` of each image's z, by magnitude, is set to zero, in training and at inference."""

    kind: Literal["topk"] = "topk"
    fraction: float = Field(0.2, gt=0, lt=1, description="part of z that is pruned")

    @property
    def label(self) -> str:
        return f"topk{self.fraction:g}"


class NoPeek(Settings):
    """Adds `weight` times the distance correlation between images and ẑ to the objective (Vepakomma et al. 2020)."""

    kind: Literal["nopeek"] = "nopeek"
    weight: float = Field(0.1, gt=0, description="weight of the distance correlation")

    @property
    def label(self) -> str:
        return f"nopeek{self.weight:g}"


Defense = Annotated[Dropout | TopK | NoPeek, Field(discriminator="kind")]
