"""The entropy surrogates: what training adds to the objective to lower the leakage."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cem.config.attention import AttentionSurrogate
from cem.config.mixture import MixtureFit
from cem.config.registry import Family
from cem.config.surrogate_base import FittedBy, SurrogateSettings, SurrogateTerm, ThresholdTerm, by
from cem.config.threshold import Threshold


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
    weight: float = by(
        "formula", {"bound": 0.1, "legacy": 16.0}, ge=0, description="λ: weight of the loss, nats per dimension"
    )
    components: Annotated[int, Field(ge=1)] | Literal["auto"] = by(
        "formula", {"bound": 3, "legacy": 5}, description="components of each class; auto: see MixtureFit"
    )
    covariance: Literal["spherical", "diag", "pca"] = by(
        "formula", {"bound": "diag", "legacy": "spherical"}, description="shape of a component"
    )
    rank: int = Field(8, ge=1, description="rank of a pca covariance")
    fit: Literal["kmeans", "em"] = Field("kmeans", description="hard k-means, or EM started from it")
    refit_every: int = Field(1, ge=1, description="epochs between refits of the mixture")
    threshold: Threshold = by(
        "formula", {"bound": Threshold(), "legacy": Threshold(kind="coupled")}, description="where the pressure stops"
    )

    @model_validator(mode="after")
    def _consistent(self) -> "GmmSurrogate":
        if self.formula == "legacy" and (self.covariance != "spherical" or self.fit != "kmeans"):
            raise ValueError("formula legacy is defined for covariance spherical and fit kmeans: leave both out")
        if self.formula == "legacy" and self.threshold.kind == "none":
            raise ValueError("formula legacy has a threshold: leave it out (coupled), or say its kind")
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


class PairSurrogate(SurrogateTerm):
    """An estimate of an upper and one of a lower bound at once: their losses, each times its own weight λ, are added.

    `weight` multiplies both. `schedule` is of both; theirs stay constant. In the `warmup_epochs` of either, λ of both
    is 0.
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
            if part.formula in ("legacy", "enhanced_variance"):
                raise ValueError(f"{name} is {part.label}, which is no bound: use it by itself")
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


SURROGATES = Family("surrogate", SurrogateSettings, modules=(__name__, "cem.config.attention"))
Surrogate = Annotated[SurrogateSettings, SURROGATES]
