"""The networks that attacks fit from z to the image, and how: shared by several attacks."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cem.config.base import Seed, Settings

_RESIDUAL = re.compile(r"res_normN(?P<blocks>\d+)C(?P<channels>\d+)")
_UNET = re.compile(r"unet_C(?P<channels>\d+)")


def parse_decoder(text: str) -> tuple[int | None, int]:
    """Read `res_normN{blocks}C{channels}` or `unet_C{channels}` (whose blocks are None).

    Raises ValueError when the text is of neither form.
    """
    match = _RESIDUAL.fullmatch(text) or _UNET.fullmatch(text)
    if match is None or int(match["channels"]) < 1:
        raise ValueError(
            f"expected res_normN<blocks>C<channels> or unet_C<channels>, such as res_normN4C32; found {text!r}"
        )
    found = match.groupdict()
    return int(found["blocks"]) if "blocks" in found else None, int(found["channels"])


class Loss(Settings):
    """What a decoder minimises: a sum of errors, each with its weight."""

    mse: float = Field(1.0, ge=0, description="weight of the mean squared error")
    l1: float = Field(0.0, ge=0, description="weight of the mean absolute error")
    ssim: float = Field(0.0, ge=0, description="weight of 1 − SSIM")

    @model_validator(mode="after")
    def _something(self) -> "Loss":
        if not self.mse + self.l1 + self.ssim:
            raise ValueError("expected a positive weight of mse, l1 or ssim; all are 0")
        return self


class NetworkFit(Settings):
    """How long a network is fitted, and on what."""

    budget: Literal["auto", "epochs"] | None = Field(
        None,
        description="auto: budgets of 4, 8, 16, … epochs until one brings less than 1 %; epochs: as many as are given; "
        "absent: epochs where these are given, else auto",
    )
    max_epochs: int = Field(256, ge=8, description="with budget auto: the largest budget that is tried")
    epochs: int | None = Field(None, ge=0, description="with budget epochs: passes over the attacker's images at most")
    patience: int | None = Field(
        None,
        ge=1,
        description="with budget epochs: epochs without a better held-out error after which the fit ends; absent: no "
        "early end",
    )
    batch_size: int = Field(256, ge=2, description="images per step")
    held_out: float = Field(0.1, gt=0, lt=0.5, description="part of the attacker's images kept for selection")
    seed: Seed = Field(0, description="seed of the attack's own generators")

    @model_validator(mode="after")
    def _one_budget(self) -> "NetworkFit":
        if self.budget is not None and (self.budget == "epochs") != (self.epochs is not None):
            raise ValueError(
                f"budget: {self.budget} {'needs' if self.epochs is None else 'leaves no place for'} epochs"
            )
        if self.patience is not None and self.epochs is None:
            raise ValueError("patience needs epochs; a budget that is found (budget: auto) ends by itself")
        return self


class DecoderFit(NetworkFit):
    """How a decoder is fitted."""

    net: str = Field("res_normN4C32", description="res_normN{blocks}C{channels}, or unet_C{channels}")
    loss: Loss = Field(Loss(), description="what is minimised; selection is by the squared error all the same")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's weight decay")

    @field_validator("net")
    @classmethod
    def _net_form(cls, value: str) -> str:
        parse_decoder(value)
        return value


_FIXED_LR: Any = Field(1e-3, gt=0, description="Adam's learning rate, from which it falls; see budget")


class StartingDecoder(DecoderFit):
    """The decoder that another attack starts from or ends with."""

    lr: float = _FIXED_LR


class FlowFit(NetworkFit):
    """How a flow from noise to images is fitted."""

    net: str = Field("unet_C32", description="unet_C{channels}: the network that gives the velocity")
    batch_size: int = Field(64, ge=2, description="images per step")
    lr: float = _FIXED_LR
    selection_images: int = Field(
        128, ge=1, description="how many of the held-out images are answered, at most, to say how good the answers are"
    )

    @field_validator("net")
    @classmethod
    def _is_unet(cls, value: str) -> str:
        if parse_decoder(value)[0] is not None:
            raise ValueError(f"expected unet_C<channels>, such as unet_C32; found {value!r}")
        return value
