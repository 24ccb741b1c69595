"""The split model: architecture, cut, bottleneck."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cem.config.registry import Family, Member

Item = int | Literal["M"]  # output channels of a convolution, or "M": 2×2 max pooling
_BOTTLENECK = re.compile(r"(?P<norelu>noRELU_)?(K(?P<kernel>\d+))?C(?P<channels>\d+)S(?P<stride>\d+)")


@dataclass(frozen=True)
class Bottleneck:
    """A pair of convolutions around the cut: down to `channels` on the client, back up on the server."""

    kernel: int
    channels: int
    stride: int
    relu: bool


def parse_bottleneck(text: str) -> Bottleneck:
    """Read `[noRELU_][Kk]CcSs`: kernel k (odd, default 3), c channels, stride s.

    Raises ValueError when the text is not of that form.
    """
    match = _BOTTLENECK.fullmatch(text)
    if match is None:
        raise ValueError(f"expected [noRELU_][K<kernel>]C<channels>S<stride>, such as noRELU_C8S1; found {text!r}")
    kernel, channels, stride = int(match["kernel"] or 3), int(match["channels"]), int(match["stride"])
    if kernel % 2 == 0 or channels < 1 or stride < 1:
        raise ValueError(f"expected an odd kernel, at least one channel and a stride of at least 1; found {text!r}")
    return Bottleneck(kernel, channels, stride, relu=match["norelu"] is None)


class ModelSettings(Member):
    """A network cut in two: the encoder on the client, the classifier on the server.

    layers: how many layers can be told apart by a cut; the client holds one at least, and so does the server.
    """

    layers: ClassVar[int]

    arch: str = Field(description="architecture")
    width: float = Field(1.0, gt=0, le=8, description="multiplier of every layer's channels")
    cut_layer: int = Field(4, ge=1, description="how many layers (convolution or pooling items) the client holds")
    bottleneck: str | None = Field(
        "noRELU_C8S1", description="[noRELU_][Kk]CcSs: kernel, channels, stride at the cut; null: none"
    )
    activation: Literal["sigmoid", "relu", "none"] = Field("sigmoid", description="last step of the encoder")

    @field_validator("bottleneck")
    @classmethod
    def _bottleneck_form(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bottleneck(value)
        return value

    @model_validator(mode="after")
    def _cut_inside(self) -> "ModelSettings":
        last = self.layers - 1
        if self.cut_layer > last:
            raise ValueError(f"cut_layer {self.cut_layer} is outside {self.arch}: choose 1 to {last}")
        return self

    def sparse(self) -> dict[str, Any]:
        """As for all settings; the architecture is named unless it is the default one, which was once the only one."""
        named = {} if self.arch == MODELS.default else {"arch": self.arch}
        return named | super().sparse()

    def side_at_cut(self, side: int) -> int:
        """Side of the features before the bottleneck, for images of this side."""
        raise NotImplementedError

    def side_of_z(self, side: int) -> int:
        """Side of z, for images of this side that pass the bottleneck."""
        stride = 1 if self.bottleneck is None else parse_bottleneck(self.bottleneck).stride
        return self.side_at_cut(side) // stride

    def check_side(self, side: int) -> None:
        """Raise ValueError when images of this side do not reach the cut, or cannot pass the bottleneck."""
        pooled = self.side_at_cut(side)
        if pooled < 1:
            raise ValueError(f"cut_layer {self.cut_layer}: nothing is left there of {side}×{side} images")
        if self.bottleneck is None:
            return
        stride = parse_bottleneck(self.bottleneck).stride
        if pooled % stride:
            raise ValueError(
                f"bottleneck {self.bottleneck}: its stride {stride} must divide the {pooled}×{pooled} features at "
                f"cut_layer {self.cut_layer} of {side}×{side} images"
            )


class Vgg11(ModelSettings):
    """VGG-11 with batch normalisation; a layer is one of its convolutions or poolings.

    Source: Simonyan & Zisserman 2015, configuration A; docs/theory.md, "The split model".
    """

    arch: Literal["vgg11"] = Field("vgg11", description="architecture")
    implementation = "cem.models.vgg:build_vgg11"
    items: ClassVar[tuple[Item, ...]] = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
    layers = len(items)

    def side_at_cut(self, side: int) -> int:
        return int(side // 2 ** self.items[: self.cut_layer].count("M"))


MODELS = Family("model", ModelSettings, tag="arch", default="vgg11")
Model = Annotated[ModelSettings, MODELS]
