"""The split model: architecture, cut, bottleneck."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cem.config.bottleneck import parse_bottleneck
from cem.config.registry import Family, Member

Item = int | Literal["M"]  # output channels of a convolution, or "M": 2×2 max pooling


class ModelSettings(Member):
    """A network cut in two: the encoder on the client, the classifier on the server.

    stages: how many there are; a cut may come after each. What follows the last one is the server's.
    """

    stages: ClassVar[int]

    arch: str = Field(description="architecture")
    width: float = Field(1.0, gt=0, le=8, description="multiplier of every layer's channels")
    cut_layer: int = Field(
        4, ge=1, description="how many stages the client holds; see the architecture for what one is"
    )
    bottleneck: str | None = Field(
        "noRELU_C8S1", description="[noRELU_][Kk]CcSs: kernel, channels, stride at the cut; null: none"
    )
    activation: Literal["sigmoid", "relu", "batch_norm", "none"] = Field(
        "sigmoid", description="last step of the encoder; batch_norm: each channel has mean 0 and variance 1"
    )

    @field_validator("bottleneck")
    @classmethod
    def _bottleneck_form(cls, value: str | None) -> str | None:
        if value is not None:
            parse_bottleneck(value)
        return value

    @model_validator(mode="after")
    def _cut_inside(self) -> "ModelSettings":
        if self.cut_layer > self.stages:
            raise ValueError(f"cut_layer {self.cut_layer} is outside {self.arch}: choose 1 to {self.stages}")
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


class Vgg(ModelSettings):
    """What the VGGs share. items: their convolutions and poolings."""

    items: ClassVar[tuple[Item, ...]]

    def side_at_cut(self, side: int) -> int:
        return int(side // 2 ** self.items[: self.cut_layer].count("M"))


class Vgg11(Vgg):
    """VGG-11 with batch normalisation; a stage is one of its convolutions or poolings.

    Source: Simonyan & Zisserman 2015, configuration A; docs/theory.md, "The split model".
    """

    arch: Literal["vgg11"] = Field("vgg11", description="architecture")
    implementation = "cem.models.vgg:build_vgg"
    items = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
    stages = len(items)


class Vgg13(Vgg):
    """VGG-13 with batch normalisation; a stage is one of its convolutions or poolings.

    Source: Simonyan & Zisserman 2015, configuration B.
    """

    arch: Literal["vgg13"] = Field("vgg13", description="architecture")
    implementation = "cem.models.vgg:build_vgg"
    items = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
    stages = len(items)


class Vgg16(Vgg):
    """VGG-16 with batch normalisation; a stage is one of its convolutions or poolings.

    Source: Simonyan & Zisserman 2015, configuration D.
    """

    arch: Literal["vgg16"] = Field("vgg16", description="architecture")
    implementation = "cem.models.vgg:build_vgg"
    items = (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M")
    stages = len(items)


class ResNet(ModelSettings):
    """What the wide ResNets share. blocks: how many there are of 32, of 64 and of 128 channels."""

    blocks: ClassVar[int]

    def side_at_cut(self, side: int) -> int:
        if self.cut_layer == self.stages:
            return 1
        return _halved(side, -(-(self.cut_layer - 1) // self.blocks))


class ResNet20(ResNet):
    """Wide ResNet-20: a 5×5 convolution, three blocks each of 32, 64 and 128 channels, the mean over positions.

    A stage is one of these eleven. The first block of each width halves the side. Source: docs/theory.md, "The split
    model"; He, Zhang, Ren & Sun 2016 for the blocks.
    """

    arch: Literal["resnet20"] = Field("resnet20", description="architecture")
    implementation = "cem.models.resnet:build_resnet"
    blocks = 3
    stages = 3 * blocks + 2


class ResNet32(ResNet):
    """Wide ResNet-32: as ResNet-20, with five blocks of each width; a stage is one of its seventeen parts."""

    arch: Literal["resnet32"] = Field("resnet32", description="architecture")
    implementation = "cem.models.resnet:build_resnet"
    blocks = 5
    stages = 3 * blocks + 2


def _halved(side: int, times: int) -> int:
    """Side after convolutions of stride 2, each of which rounds up."""
    return -(-side // 2**times)


MODELS = Family("model", ModelSettings, tag="arch", default="vgg11")
Model = Annotated[ModelSettings, MODELS]
