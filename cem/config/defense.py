"""The defences: what acts on z before it leaves the client, or on the encoder's objective."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from cem.config.registry import Family, Member


class DefenseSettings(Member):
    """What all defences share. They act in ascending `order`, after the noise, however a study lists them.

    masks: whether it sets values of z to zero, so that a zero says that the value is hidden.
    """

    order: ClassVar[int]
    masks: ClassVar[bool] = False

    @property
    def label(self) -> str:
        """Short and path-safe: part of a run's id."""
        raise NotImplementedError


class Dropout(DefenseSettings):
    """Each value of z is set to zero with probability `rate`, without rescaling, in training and at inference."""

    kind: Literal["dropout"] = "dropout"
    implementation = "cem.defenses.dropout:DropoutDefense"
    masks, order = True, 10
    rate: float = Field(0.2, gt=0, lt=1, description="probability of zero")

    @property
    def label(self) -> str:
        return f"dropout{self.rate:g}"


class TopK(DefenseSettings):
    """The smallest `fraction` of each image's z, by magnitude, is set to zero, in training and at inference."""

    kind: Literal["topk"] = "topk"
    implementation = "cem.defenses.topk:TopKDefense"
    masks, order = True, 20
    fraction: float = Field(0.2, gt=0, lt=1, description="part of z that is pruned")

    @property
    def label(self) -> str:
        return f"topk{self.fraction:g}"


class NoPeek(DefenseSettings):
    """Adds `weight` times the distance correlation between images and ẑ to the objective (Vepakomma et al. 2020)."""

    kind: Literal["nopeek"] = "nopeek"
    implementation = "cem.defenses.nopeek:NoPeekDefense"
    order = 30
    weight: float = Field(0.1, gt=0, description="weight of the distance correlation")

    @property
    def label(self) -> str:
        return f"nopeek{self.weight:g}"


DEFENSES = Family("defense", DefenseSettings)
Defense = Annotated[DefenseSettings, DEFENSES]
