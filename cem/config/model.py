"""The split model: architecture, cut, bottleneck."""

from typing import Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field

from cem.config.model_base import DEFAULT_ARCH, ModelSettings
from cem.config.registry import Family

Item = int | Literal["M"]  # output channels of a convolution, or "M": 2×2 max pooling


class Prunable(ModelSettings):
    """A network whose client can be made deeper by a convolution, and can lose channels."""

    prunable = True

    extra_conv: int = Field(
        0, ge=0, description="channels of a 3×3 convolution before the first stage, as part of it; 0: none"
    )
    client_pruned: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="part of the channels that each of the client's convolutions lacks, but those which give z or what "
        "a residual block adds to; what the defence `pruning` leads to, here from the start",
    )

    @property
    def pruned_part(self) -> float:
        return self.client_pruned


class Vgg(Prunable):
    """What the VGGs share. items: their convolutions and poolings."""

    items: ClassVar[tuple[Item, ...]]

    @property
    def prunable_convolutions(self) -> int:
        convolutions = sum(item != "M" for item in self.items[: self.cut_layer])
        return convolutions + (self.extra_conv > 0) + (self.bottleneck is not None) - 1

    def side_at_cut(self, side: int) -> int:
        return int(side // 2 ** self.items[: self.cut_layer].count("M"))

    @property
    def channels_at_cut(self) -> int:
        return round(self.width * [item for item in self.items[: self.cut_layer] if item != "M"][-1])


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


class ResNet(Prunable):
    """What the wide ResNets share. blocks: how many there are of 32, of 64 and of 128 channels."""

    blocks: ClassVar[int]

    @property
    def prunable_convolutions(self) -> int:
        first = self.cut_layer == 1 and self.bottleneck is not None  # else a block adds to it, or it gives z
        return (self.extra_conv > 0) + first + min(self.cut_layer - 1, 3 * self.blocks)

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


class Row(NamedTuple):
    """A row of MobileNetV2's table: blocks alike, the first of them with the stride."""

    expansion: int
    channels: int
    repeats: int
    stride: int


class MobileNetV2(ModelSettings):
    """MobileNetV2 for small images: the first convolution and the blocks of 24 channels keep the side.

    A stage is the first convolution, one of the 17 blocks, the last convolution, or the mean over positions. With the
    strides for large images it is `torchvision:mobilenet_v2`. Source: Sandler et al. 2018 (arXiv 1801.04381), table 2.
    """

    arch: Literal["mobilenet_v2"] = Field("mobilenet_v2", description="architecture")
    implementation = "cem.models.mobilenet:build_mobilenet"
    rows: ClassVar[tuple[Row, ...]] = (
        Row(1, 16, 1, 1), Row(6, 24, 2, 1), Row(6, 32, 3, 2), Row(6, 64, 4, 2),
        Row(6, 96, 3, 1), Row(6, 160, 3, 2), Row(6, 320, 1, 1),
    )  # fmt: skip
    stages = 1 + sum(row.repeats for row in rows) + 2

    def side_at_cut(self, side: int) -> int:
        if self.cut_layer == self.stages:
            return 1
        firsts = [1 + sum(row.repeats for row in self.rows[:index]) for index in range(len(self.rows))]  # blocks
        strides = [row.stride for row, first in zip(self.rows, firsts, strict=True) if first < self.cut_layer]
        return _halved(side, strides.count(2))


class VitSmall(ModelSettings):
    """A vision transformer of 12 blocks with 6 heads of 64 numbers on patches of 4×4 pixels, without a class token.

    A stage is the embedding of the patches, one of the blocks, or the mean of the tokens. Tokens are laid out as their
    patches are, so that z is a map like any other. Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929); Touvron et al.
    2021 (arXiv 2012.12877) for the size "small".
    """

    arch: Literal["vit_small"] = Field("vit_small", description="architecture")
    width: float = Field(1.0, gt=0, le=8, description="multiplier of the 64 numbers of each head")
    implementation = "cem.models.vit:build_vit"
    patch: ClassVar[int] = 4
    heads: ClassVar[int] = 6
    depth: ClassVar[int] = 12
    stages = depth + 2

    def side_at_cut(self, side: int) -> int:
        return 1 if self.cut_layer == self.stages else side // self.patch

    def check_side(self, side: int) -> None:
        """As for all; the patches must also cover the image."""
        if side % self.patch:
            raise ValueError(
                f"{self.arch} divides images into patches of {self.patch}×{self.patch} pixels: expected a side that is "
                f"a multiple of {self.patch}, found {side}. Choose another side"
            )
        super().check_side(side)


def _halved(side: int, times: int) -> int:
    """Side after convolutions of stride 2, each of which rounds up."""
    return -(-side // (1 << times))


_MODULES = (__name__, "cem.config.own_network")
MODELS = Family("model", ModelSettings, tag="arch", default=DEFAULT_ARCH, modules=_MODULES)
Model = Annotated[ModelSettings, MODELS]
