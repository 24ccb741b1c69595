"""The surrogates with slot attention, or with a regression of the image: one class, whose statistic says which."""

from typing import Literal

from pydantic import Field, model_validator

from cem.config.surrogate_base import FittedBy, ThresholdTerm, by
from cem.config.threshold import Threshold

_OF_SLOTS = {  # settings of the statistics with slots, which conditional has not
    "tokens", "slots", "iterations", "temperature", "slot_init", "embedding", "reduced", "heads", "components",
    "max_parameters",
}  # fmt: skip
_OF_REGRESSION = {"features", "residual", "ridge"}


class AttentionSurrogate(ThresholdTerm):
    """Slot attention and gated cross-attention, and a regression of the image on z.

    `mixture` predicts a density from one half of the batch and scores the other half: an upper bound on the leakage
    for weights that were not fitted to the images it scores (in training they were, in earlier epochs).
    `enhanced_variance` is the statistic the first attention version used, for comparison.
    `conditional` regresses the image on learned features of z, on one half of the batch, and scores the other: on
    images that its features were not fitted to, an upper bound on h(x|z), and so a lower bound on the leakage, relative
    to h(x), whatever the weights are.
    """

    kind: Literal["attention"] = "attention"
    implementation = "cem.surrogates.attention:make_attention"
    statistic: Literal["mixture", "enhanced_variance", "conditional"] = Field(
        "mixture", description="what is computed; slots have the first two"
    )
    weight: float = by(
        "statistic",
        {"mixture": 0.1, "enhanced_variance": 1.0, "conditional": 0.1},
        ge=0,
        description="λ: weight of the loss, nats per dimension; conditional: of −log(error)",
    )
    tokens: Literal["spatial", "linear", "flat"] = by(
        "statistic",
        {"mixture": "spatial", "enhanced_variance": "linear", "conditional": "spatial"},
        description="what a token is: a position of z; z reduced to `reduced` numbers; z itself, refused above "
        "`max_parameters`",
    )
    slots: int = Field(8, ge=1, description="slots")
    iterations: int = Field(3, ge=1, description="rounds of slot attention")
    temperature: float = Field(1.0, gt=0, description="divides the logits of slot attention")
    slot_init: Literal["learned", "gaussian"] = Field(
        "learned", description="slots start from learned vectors, or from draws of a learned Gaussian"
    )
    embedding: int = Field(48, ge=8, description="numbers a spatial token, a slot and a query have")
    reduced: int = Field(128, ge=8, description="numbers that z is reduced to (linear)")
    heads: int = Field(4, ge=1, description="heads of the cross-attention")
    components: int = Field(8, ge=1, description="components of a token's density (mixture)")
    max_parameters: int = Field(10_000_000, ge=1, description="a larger module is refused")
    optimizer: Literal["own", "shared", "frozen"] = Field(
        "own", description="who fits the module: its own Adam on its own loss, the model's optimizer, or nobody"
    )
    lr: float = Field(1e-3, gt=0, description="learning rate of its own Adam")
    warmup_epochs: int = Field(
        0, ge=0, description="epochs after the shared warm-up in which the module is fitted and λ is 0 (own)"
    )
    threshold: Threshold = by(
        "statistic",
        {"mixture": Threshold(), "enhanced_variance": Threshold(kind="coupled"), "conditional": Threshold()},
        description="where the pressure stops; conditional: at this squared error, kinds fixed and schedule alone",
    )
    features: int = Field(64, ge=8, description="learned numbers a position has (conditional)")
    residual: Literal["pixels", "coefficients"] = Field(
        "pixels",
        description="pixels: log of the mean squared error; coefficients: mean log of the error of each cosine "
        "coefficient of a patch (conditional)",
    )
    ridge: float = Field(
        0.5,
        gt=0,
        description="times features / positions of half a batch: added to the variance of every feature, in parts of "
        "it (conditional)",
    )
    antithetic: bool = by(
        "statistic",
        {"mixture": False, "enhanced_variance": False, "conditional": True},
        description="score ẑ + ε and ẑ − ε of each draw: the gradients of two draws then agree far better "
        "(mixture, conditional)",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "AttentionSurrogate":
        if self.tokens != "flat" and self.width % self.heads:
            name = {"spatial": "embedding", "linear": "reduced"}[self.tokens]
            raise ValueError(f"{name} {self.width} must be a multiple of heads {self.heads}")
        if self.warmup_epochs and self.optimizer != "own":
            raise ValueError("warmup_epochs needs optimizer own: nothing else fits the module while λ is 0")
        return self

    @model_validator(mode="after")
    def _of_the_statistic(self) -> "AttentionSurrogate":
        conditional = self.statistic == "conditional"
        others = _OF_SLOTS if conditional else _OF_REGRESSION
        if given := sorted(others & self.sparse().keys()):
            raise ValueError(f"statistic {self.statistic} has no {', '.join(given)}: leave out")
        if self.statistic == "enhanced_variance" and self.antithetic:
            raise ValueError("statistic enhanced_variance has no antithetic: leave out")
        if conditional and self.threshold.kind in ("coupled", "quantile"):
            raise ValueError(
                f"threshold {self.threshold.kind} is of a variance of z; that of statistic conditional is a squared "
                "error of images in [0, 1]: use kind fixed with a value, such as 0.03, or schedule"
            )
        if conditional and self.optimizer == "shared":
            raise ValueError(
                "optimizer shared gives the network the encoder's loss, by which it learns to predict badly: statistic "
                "conditional has own or frozen"
            )
        return self

    @property
    def width(self) -> int:
        """Numbers a token, a slot and a query have; of flat tokens, z's own size, which is not known here."""
        return self.embedding if self.tokens == "spatial" else self.reduced

    @property
    def fitted_by(self) -> FittedBy:
        return self.optimizer

    @property
    def own_lr(self) -> float:
        return self.lr

    @property
    def own_warmup_epochs(self) -> int:
        return self.warmup_epochs

    @property
    def checks_size(self) -> bool:
        return self.tokens == "flat"

    @property
    def formula(self) -> str:
        return self.statistic

    @property
    def label(self) -> str:
        return f"attention-{self.statistic}-w{self.weight:g}"
