"""The defences: what acts on z before it leaves the client, or on the encoder's objective."""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cem.config.decoder import parse_decoder
from cem.config.defense_base import DefenseSettings
from cem.config.model_base import ModelSettings
from cem.config.registry import Family

_SSIM = 0.5  # of the adversary's images, up to which the client does not pay, where nothing is said
SMALLEST_SSIM_SIDE = 6  # cem.metrics: its window is reflected at the borders


class Dropout(DefenseSettings):
    """Each value of z is set to zero with probability `rate`, without rescaling, in training and at inference."""

    kind: Literal["dropout"] = "dropout"
    implementation = "cem.defenses.dropout:DropoutDefense"
    strength = "rate"
    masks, order = True, 10
    rate: float = Field(0.2, gt=0, lt=1, description="probability of zero")

    @property
    def label(self) -> str:
        return f"dropout{self.rate:g}"


class TopK(DefenseSettings):
    """The smallest `fraction` of z, by magnitude, is set to zero, in training and at inference.

    Of each image's z; or, as published, of all that is sent at once, where what is left of an image depends on the
    others and most of a weak one is gone.
    """

    kind: Literal["topk"] = "topk"
    implementation = "cem.defenses.topk:TopKDefense"
    strength = "fraction"
    masks, order = True, 20
    fraction: float = Field(0.2, gt=0, lt=1, description="part of z that is pruned")
    scope: Literal["image", "batch"] = Field(
        "image", description="whose values are compared: of an image, or of all images that are sent together"
    )

    @property
    def label(self) -> str:
        return f"topk{self.fraction:g}" if self.scope == "image" else f"topk_batch{self.fraction:g}"

    def zeros(self, numbers: int) -> int:
        """How many of so many values are set to zero."""
        return round(self.fraction * numbers)

    def check_size(self, numbers: int, batch: int) -> None:
        of_several = self.scope == "batch"
        numbers *= batch if of_several else 1
        if not 0 < self.zeros(numbers) < numbers:
            raise ValueError(
                f"topk: fraction {self.fraction:g} of the {numbers} numbers of z"
                f"{f' of {batch} images' if of_several else ''} sets {self.zeros(numbers)} to zero; "
                f"expected 1 to {numbers - 1}. Choose a fraction from {1 / numbers:.2g} to {1 - 1 / numbers:.4g}"
            )


class NoPeek(DefenseSettings):
    """Adds `weight` times the distance correlation between images and ẑ to the objective (Vepakomma et al. 2020)."""

    kind: Literal["nopeek"] = "nopeek"
    implementation = "cem.defenses.nopeek:NoPeekDefense"
    strength = "weight"
    needs_training, order = True, 30
    weight: float = Field(0.1, gt=0, description="weight of the distance correlation")

    @property
    def label(self) -> str:
        return f"nopeek{self.weight:g}"


class Adversarial(DefenseSettings):
    """A decoder is trained beside the network, and the client pays for what it recovers beyond `threshold` (ResSFL).

    The decoder learns from ẑ; it is no part of the model, and no attacker gets it. Source: docs/theory.md, "The
    defences".
    """

    kind: Literal["adversarial"] = "adversarial"
    implementation = "cem.defenses.adversarial:AdversarialDefense"
    strength = "weight"
    needs_training, order = True, 40
    weight: float = Field(0.3, gt=0, description="weight of what the decoder recovers")
    score: Literal["ssim", "mse", "log_mse"] = Field(
        "ssim", description="what the decoder is trained by, and the client pays for, averaged over a batch"
    )
    threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="the client pays for an SSIM above it, 0.5 where it is absent, or for a mean squared error below "
        "it, which has to be given",
    )
    net: str = Field("res_normN4C64", description="the decoder: res_normN{blocks}C{channels}, or unet_C{channels}")
    lr: float = Field(1e-3, gt=0, description="learning rate of the decoder's Adam")
    steps: int = Field(1, ge=1, description="steps of the decoder on a batch that it learns from")
    interval: int = Field(1, ge=1, description="it learns from every interval-th batch")

    @field_validator("net")
    @classmethod
    def _net_form(cls, value: str) -> str:
        parse_decoder(value)
        return value

    @model_validator(mode="before")
    @classmethod
    def _said_or_not(cls, settings: Any) -> Any:
        """The threshold that it has anyway is not kept, so that one run is not two."""
        if isinstance(settings, dict) and settings.get("score", "ssim") == "ssim":
            return {key: one for key, one in settings.items() if key != "threshold" or one != _SSIM}
        return settings

    @model_validator(mode="after")
    def _threshold_of_score(self) -> "Adversarial":
        if self.score != "ssim" and (self.threshold is None or self.threshold <= 0):
            found = "none" if self.threshold is None else f"{self.threshold:g}"
            raise ValueError(
                f"score: {self.score} needs a threshold above 0, the mean squared error of images in [0, 1] up to "
                f"which the client pays; found {found}. Set threshold, such as 0.03"
            )
        return self

    @property
    def limit(self) -> float:
        """What the decoder's loss has to lie below for the client to pay: of −SSIM, MSE or log MSE."""
        if self.score == "ssim":
            return -(_SSIM if self.threshold is None else self.threshold)
        assert self.threshold is not None
        return self.threshold if self.score == "mse" else math.log(self.threshold)

    def check_z(self, model: ModelSettings, z: int, side: int) -> None:
        if z > side:
            raise ValueError(
                f"{self.member} cannot train its decoder at {model.label} cut at layer {model.cut_layer}: it enlarges "
                f"z until it is an image; found z of {z}×{z} and images of {side}×{side}. Choose another side, "
                "cut_layer or bottleneck, or leave the defence out."
            )
        if self.score == "ssim" and side < SMALLEST_SSIM_SIDE:
            raise ValueError(
                f"{self.member}: score: ssim needs images of {SMALLEST_SSIM_SIDE}×{SMALLEST_SSIM_SIDE} pixels at "
                f"least; found {side}×{side}. Choose score: mse"
            )

    @property
    def label(self) -> str:
        score = "" if self.score == "ssim" else f"_{self.score}"
        return f"adversarial{score}{self.weight:g}"


class Hsic(DefenseSettings):
    """Makes ẑ depend less on the image and more on the label, as HSIC measures it (BiDO, Peng et al. 2022).

    Adds weight_x · HSIC(x, ẑ) − weight_y · HSIC(ẑ, y) to the objective; y is one-hot.
    """

    kind: Literal["hsic"] = "hsic"
    implementation = "cem.defenses.hsic:HsicDefense"
    strength = "weight_x"
    needs_training, order = True, 31
    weight_x: float = Field(0.05, ge=0, description="weight of HSIC(x, ẑ)")
    weight_y: float = Field(0.5, ge=0, description="weight of HSIC(ẑ, y)")
    bandwidth: float = Field(5.0, gt=0, description="of the Gaussian kernels, for each √number of a point")

    @model_validator(mode="after")
    def _weighs(self) -> "Hsic":
        if self.weight_x == self.weight_y == 0:
            raise ValueError("both weights are 0, and nothing is defended. Raise weight_x or weight_y")
        return self

    @property
    def label(self) -> str:
        bandwidth = f"-b{self.bandwidth:g}" if self.bandwidth != 5 else ""
        return f"hsic{self.weight_x:g}-{self.weight_y:g}{bandwidth}"


class Pruning(DefenseSettings):
    """In the middle of a training, channels leave the client's convolutions.

    They leave each but the last, which gives z, and those that give what a ResNet's blocks add to: a block loses
    channels between its two convolutions. Those whose filters have the smallest L1 norm go. With `model.extra_conv: 16`
    and `adversarial` it is PATROL: a deeper client that is pruned back to size. Source: docs/theory.md, "The defences".
    """

    kind: Literal["pruning"] = "pruning"
    implementation = "cem.defenses.pruning:PruningDefense"
    needs_training, order = True, 50
    strength = "fraction"
    fraction: float = Field(0.05, gt=0, lt=1, description="part of the channels that go, rounded up in number")
    at: float = Field(0.75, gt=0, lt=1, description="part of the epochs after which they go, not within the warm-up")

    def pruned(self, model: ModelSettings) -> ModelSettings:
        return model.model_copy(update={"client_pruned": self.fraction})

    def prunes_at(self, epochs: int) -> int:
        return math.ceil(round(self.at * epochs, 6))  # 0.07 of 100 epochs is 7.000000000000001 in floats

    def check_model(self, model: ModelSettings, side: int) -> None:
        if not model.prunable:
            raise ValueError(
                f"pruning cannot take channels from {model.label}: that is implemented for VGGs and the wide "
                "ResNets. Choose one of these, or leave the defence out."
            )
        if model.prunable_convolutions < 1:
            raise ValueError(
                f"pruning would take nothing from {model.label} cut at layer {model.cut_layer}: its client has no "
                "convolution but the one that gives z. Choose a later cut, a bottleneck or extra_conv, or leave the "
                "defence out."
            )
        if model.pruned_part:
            raise ValueError(
                f"pruning makes a whole client smaller; found client_pruned: {model.pruned_part:g}. Leave one out."
            )

    @property
    def label(self) -> str:
        return f"pruning{self.fraction:g}"


class SparseCoding(DefenseSettings):
    """Between bottleneck and activation z ← Wᵀ soft(W z): a sparse code, in which coefficients below `threshold` are 0.

    It is part of the encoder. W is learned with it.
    """

    kind: Literal["sca"] = "sca"
    implementation = "cem.defenses.sparse_coding:SparseCodingDefense"
    in_encoder = "cem.models.sparse_coding:SparseCode"
    needs_training, order = True, 1
    strength = "threshold"
    threshold: float = Field(0.01, gt=0, description="by how much each coefficient is drawn towards 0")
    expansion: int = Field(1, ge=1, description="coefficients for each channel of z")

    @property
    def label(self) -> str:
        expansion = f"-x{self.expansion}" if self.expansion != 1 else ""
        return f"sca{self.threshold:g}{expansion}"


DEFENSES = Family("defense", DefenseSettings, modules=(__name__, "cem.config.noise"))
Defense = Annotated[DefenseSettings, DEFENSES]
