"""The attacks every run is scored by, and what each attacker knows."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from cem.config.base import Seed, Settings, Slug

_DECODER = re.compile(r"res_normN(?P<blocks>\d+)C(?P<channels>\d+)")


def parse_decoder(text: str) -> tuple[int, int]:
    """Read `res_normN{blocks}C{channels}`. Raises ValueError when the text is not of that form."""
    match = _DECODER.fullmatch(text)
    if match is None or int(match["channels"]) < 1:
        raise ValueError(f"expected res_normN<blocks>C<channels>, such as res_normN4C32; found {text!r}")
    return int(match["blocks"]), int(match["channels"])


class AttackBase(Settings):
    """What all attacks share."""

    name: Slug | None = Field(None, description="how results name the attack; absent: its kind")
    data: Literal["private", "shadow"] = Field(
        "private", description="the attacker's images: the defender's own (worst case), or a disjoint set"
    )

    @property
    def id(self) -> str:
        return self.name if self.name is not None else self.kind  # type: ignore[attr-defined]


class MeanImage(AttackBase):
    """Answers every z with the mean of the attacker's images: what an attacker who sees nothing would do."""

    kind: Literal["mean_image"] = "mean_image"


class Linear(AttackBase):
    """Least squares from z to the image, in closed form, with a ridge chosen on images held out by the attacker."""

    kind: Literal["linear"] = "linear"


class Nearest(AttackBase):
    """The attacker's image whose z is nearest; on private images the scored image itself is left out."""

    kind: Literal["nearest"] = "nearest"


class Decoder(AttackBase):
    """A convolutional decoder trained to turn z into the image."""

    kind: Literal["decoder"] = "decoder"
    net: str = Field("res_normN4C32", description="res_normN{blocks}C{channels}")
    epochs: int = Field(50, ge=1, description="passes over the attacker's images")
    batch_size: int = Field(256, ge=2, description="images a step")
    lr: float = Field(1e-3, gt=0, description="Adam's learning rate; falls to a hundredth along a cosine")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's weight decay")
    held_out: float = Field(0.1, gt=0, lt=0.5, description="part of the attacker's images kept for selection")
    seed: Seed = Field(0, description="seed of the attack's own generators")

    @field_validator("net")
    @classmethod
    def _net_form(cls, value: str) -> str:
        parse_decoder(value)
        return value


Attack = Annotated[MeanImage | Linear | Nearest | Decoder, Field(discriminator="kind")]
BASELINES = ("mean_image", "linear", "nearest")  # need no training: all of a run's share one job
