"""Where a surrogate stops pressing."""

from typing import Literal

from pydantic import Field, model_validator

from cem.config.base import Settings


class Threshold(Settings):
    """Where the pressure on a variance stops: relu(log(v + σ²) − log(thr + σ²)). Acts in the loss only."""

    kind: Literal["none", "coupled", "fixed", "quantile", "schedule"] = Field(
        "none",
        description="none; coupled: τσ² (published); fixed: value; quantile: of the intra-class variances that the "
        "warm-up ends with; schedule: from start to end over the epochs after the warm-up",
    )
    tau: float = Field(0.125, gt=0, description="τ of a coupled threshold")
    value: float = Field(
        0.001, gt=0, description="a fixed threshold, in units of z squared; enhanced_variance adds 0.001 to each"
    )
    quantile: float = Field(0.5, gt=0, lt=1, description="which quantile of the intra-class variances")
    start: float = Field(0.01, gt=0, description="first value of a scheduled threshold, in units of z squared")
    end: float = Field(0.001, gt=0, description="last value of a scheduled threshold, in units of z squared")
    shape: Literal["linear", "cosine"] = Field("cosine", description="how a scheduled threshold moves")
    floor: float = Field(1e-6, gt=0, description="no threshold is below this, in units of z squared")

    @model_validator(mode="after")
    def _kind_is_said(self) -> "Threshold":
        """Without a kind there is no threshold, whatever else is given, and the pressure would never stop."""
        if "kind" not in self.model_fields_set and self.model_fields_set:
            raise ValueError(
                f"{', '.join(sorted(self.model_fields_set))} without a kind acts on nothing: say kind, too"
            )
        return self

    @property
    def moves(self) -> bool:
        """Whether it changes from epoch to epoch."""
        return self.kind == "schedule" and max(self.start, self.floor) != max(self.end, self.floor)
