"""What all entropy surrogates share: the weight of their term, its schedule, and what a threshold asks for."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from cem.config.mixture import MixtureFit
from cem.config.registry import Member
from cem.config.threshold import Threshold
from cem.config.training import Training

FittedBy = Literal["own", "shared", "frozen"]
LEGACY_LR = 4.1e-4  # below this learning rate the schedule legacy_lr has λ itself, as in the released code


class SurrogateSettings(Member):
    """What all surrogates say of themselves. adds_term: whether the objective has a term of it."""

    adds_term: ClassVar[bool] = True

    if TYPE_CHECKING:  # every member has these, as settings or as properties

        @property
        def weight(self) -> float: ...

        @property
        def schedule(self) -> str: ...

        @property
        def formula(self) -> str: ...

        @property
        def label(self) -> str: ...

    @property
    def mixture(self) -> MixtureFit | None:
        """How the mixture is fitted that it starts from; None: it needs none."""
        return None

    @property
    def fitted_by(self) -> FittedBy:
        """Who fits its own parameters: an Adam of its own, the client's optimizer, or nobody (also: it has none)."""
        return "frozen"

    @property
    def own_lr(self) -> float:
        """Learning rate of its own Adam, where it has one."""
        return 0.0

    @property
    def own_warmup_epochs(self) -> int:
        """Epochs after the shared warm-up in which λ is 0."""
        return 0

    @property
    def measures_threshold(self) -> bool:
        """Whether it looks at all private images once, when the shared warm-up is over."""
        return False

    @property
    def checks_size(self) -> bool:
        """Whether it may be too large for this z, which `check_size` of its implementation then says."""
        return False

    def refit_due(self, since: int) -> bool:
        """Whether it is fitted again to all private images at the start of an epoch, `since` the shared warm-up."""
        return False

    @property
    def moves_threshold(self) -> bool:
        """Whether its threshold moves from epoch to epoch, and is at its end in the last one only."""
        return False

    @property
    def smallest_class(self) -> int:
        """Private images that every class must have for it to work at all."""
        return 1

    def check_training(self, training: Training) -> None:
        """Raise ValueError unless a training like this has an epoch at the final λ(t) and threshold: one to keep."""
        left = training.epochs - training.warmup_epochs
        if self.own_warmup_epochs >= left:
            text = f"surrogate.warmup_epochs ({self.own_warmup_epochs}) must be below the {left} epochs that follow"
            raise ValueError(f"{text} the shared warm-up: no epoch would have the surrogate's weight")
        if self.moves_threshold and self.weight > 0 and left < 2:
            raise ValueError(
                "surrogate.threshold: a schedule needs 2 epochs after the shared warm-up to reach its end; found 1. "
                "Raise training.epochs, or use kind fixed"
            )
        lowest = training.lr_at(training.epochs - 1)
        if self.schedule == "legacy_lr" and self.weight > 0 and lowest >= LEGACY_LR:
            raise ValueError(
                f"surrogate.schedule: legacy_lr has the stated weight only at learning rates below {LEGACY_LR:g}; "
                f"the last epoch's is {lowest:g}. Lower training.lr or training.lr_decay, add training.milestones, or "
                "use schedule constant"
            )


class SurrogateTerm(SurrogateSettings):
    """What the surrogates with a term in the objective share."""

    schedule: Literal["constant", "ramp", "legacy_lr"] = Field(
        "constant",
        description="λ(t): constant; ramp: linear from 0 over the epochs after the warm-up; legacy_lr: the published "
        "factor, 1 if lr < 4.1e-4 else 0.001/lr; the learning rate must fall below that",
    )


class ThresholdTerm(SurrogateTerm):
    """What the surrogates whose pressure ends at a threshold share. Each declares it, with a default of its own."""

    if TYPE_CHECKING:

        @property
        def threshold(self) -> Threshold: ...

    @property
    def measures_threshold(self) -> bool:
        return self.threshold.kind == "quantile"

    @property
    def moves_threshold(self) -> bool:
        return self.threshold.moves


def by(name: str, defaults: dict[str, Any], *, description: str, **bounds: Any) -> Any:
    """A field whose default depends on the field `name`, declared before it."""
    listed = ", ".join(f"{getattr(value, 'kind', value)} ({key})" for key, value in defaults.items())
    return Field(
        default_factory=lambda data: defaults[data[name]], description=f"{description}; absent: {listed}", **bounds
    )
