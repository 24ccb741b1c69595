"""The settings classes: what a study may say. They need no torch."""

from typing import ClassVar, Literal

from pydantic import Field

from cem.config import (
    AttackSettings,
    DatasetSettings,
    DefenseSettings,
    MetricSettings,
    ModelSettings,
    Slug,
    SurrogateTerm,
)


class Rounding(DefenseSettings):
    """Each value of z is rounded to one of `levels` values, evenly spaced in [0, 1]."""

    kind: Literal["rounding"] = "rounding"
    implementation = "cem_example.rounding:RoundingDefense"
    order = 15
    levels: int = Field(8, ge=2, description="how many values there are")

    @property
    def label(self) -> str:
        return f"rounding{self.levels}"


class Neighbours(AttackSettings):
    """The mean of those of the attacker's images whose z are nearest."""

    kind: Literal["neighbours"] = "neighbours"
    implementation = "cem_example.neighbours:NeighboursAttack"
    trained = False
    possible_encoder = ("query", "weights")
    count: int = Field(5, ge=1, description="how many images the mean is of")


class BatchVariance(SurrogateTerm):
    """Variance of the batch's ẑ, every dimension by itself: ½ log(1 + v / σ²), as if ẑ were Gaussian."""

    kind: Literal["batch_variance"] = "batch_variance"
    implementation = "cem_example.batch_variance:BatchVarianceSurrogate"
    weight: float = Field(0.1, ge=0, description="λ: weight of the loss, nats per dimension")

    @property
    def formula(self) -> str:
        return ""

    @property
    def label(self) -> str:
        return f"batch_variance-w{self.weight:g}"


class TwoConvolutions(ModelSettings):
    """Two convolutions with pooling; a stage is a convolution or the pooling between them."""

    arch: Literal["two_convolutions"] = Field("two_convolutions", description="architecture")
    implementation = "cem_example.two_convolutions:build"
    stages: ClassVar[int] = 3
    cut_layer: int = Field(2, ge=1, description="how many stages the client holds: 1 to 3")

    def side_at_cut(self, side: int) -> int:
        return side // (1, 2, 4)[self.cut_layer - 1]


class Discs(DatasetSettings):
    """Grey discs, whose size says the class: made on the spot."""

    source: Literal["discs"] = "discs"
    implementation = "cem_example.discs:DISCS"
    real = False
    name: Slug = Field("discs", description="how results name the data set")
    channels: Literal[1, 3] = Field(1, description="1: grey; 3: colour (grey images are repeated)")
    images: int = Field(600, ge=10, description="how many images")


class EdgeError(MetricSettings):
    """Mean absolute error of the differences between pixels side by side: how far edges are off."""

    kind: Literal["edge_error"] = "edge_error"
    implementation = "cem_example.edge_error:edge_error"
    better = "lower"
    smallest_side = 2
