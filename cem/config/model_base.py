"""What all architectures share: the split model's cut, its bottleneck and the end of its encoder."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from cem.config.bottleneck import parse_bottleneck
from cem.config.registry import Member

DEFAULT_ARCH = "vgg11"  # where a study names none
SMALLEST_SIDE = 32  # pixels of images, for the networks of this program: their poolings halve it five times


class ModelSettings(Member):
    """A network cut in two: the encoder on the client, the classifier on the server.

    stages: how many there are; a cut may come after each. What follows the last one is the server's. needs_network:
    whether sides are known once the network is built, and not before; cem.models.check then says what is wrong.
    prunable: whether channels can leave the encoder (cem/models/pruning.py), and the setting `client_pruned` says which
    part of them has.
    has_network: whether there is one; otherwise z comes with the data.
    """

    stages: ClassVar[int]
    needs_network: ClassVar[bool] = False
    prunable: ClassVar[bool] = False
    has_network: ClassVar[bool] = True

    arch: str = Field(description="architecture")
    width: float = Field(1.0, gt=0, le=8, description="multiplier of every layer's channels")
    cut_layer: int = Field(
        4, ge=1, description="how many stages the client holds; see the architecture for what one is"
    )
    bottleneck: str | None = Field(
        "noRELU_C8S1", description="`[noRELU_][Kk]CcSs`: kernel, channels, stride at the cut; null: none"
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
        named = {} if self.arch == DEFAULT_ARCH else {"arch": self.arch}
        return named | super().sparse()

    @property
    def label(self) -> str:
        """The architecture in results and in paths."""
        return self.arch

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the files that the network comes from: runs differ where their contents do."""
        return ()

    @property
    def undefended(self) -> "ModelSettings | None":
        """The same network with weights that nothing defends, trained elsewhere; None: the study names none."""
        return None

    @property
    def from_scratch(self) -> "ModelSettings":
        """The same network with random weights."""
        return self

    @property
    def fixed(self) -> bool:
        """Whether files give all of its weights, or z itself: without training it is then the same for every seed."""
        return False

    def check_untrained(self) -> None:
        """Raise ValueError where the network has parts that only the pipeline's own training could fill."""

    def check_weights(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raise ModelError where files of weights do not fit the network, or that does not fit these classes."""

    @property
    def pruned_part(self) -> float:
        """Part of the channels that have left the encoder."""
        return 0.0

    @property
    def prunable_convolutions(self) -> int:
        """From how many of the client's convolutions channels can go."""
        return 0

    def side_at_cut(self, side: int) -> int:
        """Side of the features before the bottleneck, for images of this side; not asked where it needs the network."""
        raise NotImplementedError

    @property
    def channels_at_cut(self) -> int:
        """Channels before the bottleneck; where only the network knows, a guess for forecasts: 128."""
        return 128

    def side_of_z(self, side: int) -> int:
        """Side of z, for images of this side that pass the bottleneck."""
        stride = 1 if self.bottleneck is None else parse_bottleneck(self.bottleneck).stride
        return self.side_at_cut(side) // stride

    def check_side(self, side: int) -> None:
        """Raise ValueError when images of this side do not reach the cut, or cannot pass the bottleneck."""
        if not self.needs_network:
            if side < SMALLEST_SIDE:
                raise ValueError(
                    f"{self.arch} takes images of {SMALLEST_SIDE}×{SMALLEST_SIDE} pixels or more, found dataset.side: "
                    f"{side}. Smaller ones are for a network or activations of one's own"
                )
            self.check_features(self.side_at_cut(side), side)

    def check_features(self, pooled: int, side: int) -> None:
        """Raise ValueError when features of side `pooled`, of images of this side, cannot pass the bottleneck."""
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
