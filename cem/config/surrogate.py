"""The entropy surrogates: what training adds to the objective to lower the leakage."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cem.config.mixture import MixtureFit
from cem.config.registry import Family
from cem.config.surrogate_base import FittedBy, SurrogateSettings, SurrogateTerm, ThresholdTerm
from cem.config.threshold import Threshold


def _by(name: str, defaults: dict[str, Any], *, description: str, **bounds: Any) -> Any:
    """A field whose default depends on the field `name`, declared before it."""
    listed = ", ".join(f"{getattr(value, 'kind', value)} ({key})" for key, value in defaults.items())
    return Field(
        default_factory=lambda data: defaults[data[name]], description=f"{description}; absent: {listed}", **bounds
    )


class NoSurrogate(SurrogateSettings):
    """No entropy term: the baseline every other run is read against."""

    kind: Literal["none"] = "none"
    implementation = "cem.surrogates.base:make_none"
    adds_term = False

    @property
    def weight(self) -> float:
        return 0.0

    @property
    def schedule(self) -> str:
        return "constant"

    @property
    def formula(self) -> str:
        return ""

    @property
    def label(self) -> str:
        return "none"


class GmmSurrogate(ThresholdTerm):
    """Per-class Gaussian mixtures: `bound` is Theorem 2 of arXiv 2503.00383, `legacy` the heuristic as released."""

    kind: Literal["gmm"] = "gmm"
    implementation = "cem.surrogates.gmm:Gmm"
    formula: Literal["bound", "legacy"] = Field("bound", description="the bound itself, or the released heuristic")
    weight: float = _by(
        "formula", {"bound": 0.1, "legacy": 16.0}, ge=0, description="λ: weight of the loss, nats per dimension"
    )
    components: Annotated[int, Field(ge=1)] | Literal["auto"] = _by(
        "formula", {"bound": 3, "legacy": 5}, description="components of each class; auto: see MixtureFit"
    )
    covariance: Literal["spherical", "diag", "pca"] = _by(
        "formula", {"bound": "diag", "legacy": "spherical"}, description="shape of a component"
    )
    rank: int = Field(8, ge=1, description="rank of a pca covariance")
    fit: Literal["kmeans", "em"] = Field("kmeans", description="hard k-means, or EM started from it")
    refit_every: int = Field(1, ge=1, description="epochs between refits of the mixture")
    threshold: Threshold = _by(
        "formula", {"bound": Threshold(), "legacy": Threshold(kind="coupled")}, description="where the pressure stops"
    )

    @model_validator(mode="after")
    def _legacy_is_spherical(self) -> "GmmSurrogate":
        if self.formula == "legacy" and (self.covariance != "spherical" or self.fit != "kmeans"):
            raise ValueError("formula legacy is defined for covariance spherical and fit kmeans: leave both out")
        return self

    @property
    def mixture(self) -> MixtureFit:
        """How the mixture is fitted."""
        return MixtureFit(components=self.components, covariance=self.covariance, rank=self.rank, fit=self.fit)

    @property
    def smallest_class(self) -> int:
        return 2  # of one image there is no variance: its component would be the image itself

    def refit_due(self, since: int) -> bool:
        return since > 0 and since % self.refit_every == 0  # it was fitted to the very features of the warm-up's end

    @property
    def label(self) -> str:
        return f"gmm-{self.formula}-w{self.weight:g}"


class GaussianSurrogate(ThresholdTerm):
    """One full covariance of all numbers of z, from earlier batches of the epoch: a closed-form bound, nothing learned.

    It has a mean for each class. An upper bound on the leakage: no sample is scored under a density that has seen it.
    """

    kind: Literal["gaussian"] = "gaussian"
    implementation = "cem.surrogates.gaussian:Gaussian"
    weight: float = Field(0.1, ge=0, description="λ: weight of the loss, nats per dimension")
    support: int = Field(1024, ge=2, description="latest samples of the epoch that the covariance is estimated from")
    max_dimensions: int = Field(4096, ge=1, description="a z of more numbers is refused: time grows with their cube")
    threshold: Threshold = Field(Threshold(), description="where the pressure on a variance stops")

    @property
    def checks_size(self) -> bool:
        return True

    @property
    def formula(self) -> str:
        return "bound"

    @property
    def label(self) -> str:
        return f"gaussian-w{self.weight:g}"


_OF_SLOTS = {  # settings of the statistics with slots, which conditional has not
    "tokens", "slots", "iterations", "temperature", "slot_init", "embedding", "reduced", "heads", "components",
    "max_parameters",
}  # fmt: skip
_OF_REGRESSION = {"features", "residual", "ridge"}


class AttentionSurrogate(ThresholdTerm):
    """Slot attention and gated cross-attention, and a regression of the image on z.

    `mixture` predicts a density from one half of the batch and scores the other half: an upper bound on the leakage
    whatever the weights are. `enhanced_variance` is the statistic the first attention version used, for comparison.
    `conditional` regresses the image on learned features of z, on one half of the batch, and scores the other: an upper
    bound on h(x|z), and so a lower bound on the leakage, relative to h(x), whatever the weights are.
    """

    kind: Literal["attention"] = "attention"
    implementation = "cem.surrogates.attention:make_attention"
    statistic: Literal["mixture", "enhanced_variance", "conditional"] = Field(
        "mixture", description="what is computed; slots have the first two"
    )
    weight: float = _by(
        "statistic",
        {"mixture": 0.1, "enhanced_variance": 1.0, "conditional": 0.1},
        ge=0,
        description="λ: weight of the loss, nats per dimension; conditional: of −log(error)",
    )
    tokens: Literal["spatial", "linear", "flat"] = _by(
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
    threshold: Threshold = _by(
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
    antithetic: bool = _by(
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


class PairSurrogate(SurrogateTerm):
    """An upper and a lower bound at once: their losses, each times its own weight λ, are added.

    `weight` multiplies both. `schedule` is of both; theirs stay constant.
    """

    kind: Literal["pair"] = "pair"
    implementation = "cem.surrogates.pair:Pair"
    weight: float = Field(1.0, ge=0, description="multiplies the weights λ of both")
    upper: Annotated[GmmSurrogate | GaussianSurrogate | AttentionSurrogate, Field(discriminator="kind")] = Field(
        GmmSurrogate(), description="bounds the leakage from above: gmm, gaussian, or attention of another statistic"
    )
    lower: AttentionSurrogate = Field(
        AttentionSurrogate(statistic="conditional"),
        description="bounds the leakage from below: attention of statistic conditional",
    )

    @model_validator(mode="after")
    def _of_two_kinds(self) -> "PairSurrogate":
        for name, part in (("upper", self.upper), ("lower", self.lower)):
            if (part.formula == "conditional") != (name == "lower"):
                raise ValueError(f"{name} is {part.label}: expected statistic conditional as lower, another as upper")
            if part.weight == 0:
                raise ValueError(f"{name}.weight is 0: leave the pair out, and use the other one by itself")
            if part.schedule != "constant":
                raise ValueError(f"{name}.schedule: give the pair the schedule {part.schedule}, which is of both")
        fitted = [part for part in (self.upper, self.lower) if part.fitted_by != "frozen"]
        if any(part.fitted_by == "shared" for part in fitted):
            raise ValueError("upper.optimizer: a pair's parts have own or frozen: found shared")
        if len({part.own_lr for part in fitted}) > 1:
            raise ValueError(
                f"one Adam fits both: give one lr, not {self.upper.own_lr:g} (upper) and {self.lower.lr:g}"
            )
        return self

    @property
    def mixture(self) -> MixtureFit | None:
        """What the upper one starts from."""
        return self.upper.mixture

    @property
    def fitted_by(self) -> FittedBy:
        return "own" if "own" in (self.upper.fitted_by, self.lower.fitted_by) else "frozen"

    @property
    def own_lr(self) -> float:
        return max(part.own_lr if part.fitted_by == "own" else 0.0 for part in (self.upper, self.lower))

    @property
    def own_warmup_epochs(self) -> int:
        return max(self.upper.own_warmup_epochs, self.lower.own_warmup_epochs)

    @property
    def measures_threshold(self) -> bool:
        return self.upper.measures_threshold

    @property
    def moves_threshold(self) -> bool:
        return self.upper.moves_threshold or self.lower.moves_threshold

    @property
    def checks_size(self) -> bool:
        return self.upper.checks_size

    @property
    def smallest_class(self) -> int:
        return self.upper.smallest_class

    def refit_due(self, since: int) -> bool:
        return self.upper.refit_due(since)

    @property
    def formula(self) -> str:
        return f"{self.upper.formula}+{self.lower.formula}"

    @property
    def label(self) -> str:
        return f"pair-{self.upper.label}+{self.lower.label}-w{self.weight:g}"


SURROGATES = Family("surrogate", SurrogateSettings, modules=(__name__,))
Surrogate = Annotated[SurrogateSettings, SURROGATES]
