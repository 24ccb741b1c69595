"""How a split model is trained."""

from typing import Annotated, Any, Literal, Optional

from pydantic import Field, model_validator

from cem.config.base import Settings
from cem.config.spelling import Also


def _warmup(settings: dict[str, Any]) -> int:
    """One epoch, where there are any."""
    return min(1, int(settings["epochs"]))


class Training(Settings):
    """SGD with momentum and a step schedule; the published settings are the defaults.

    `training: none` is the same as `{epochs: 0}`: the network is taken as it is given, and attacked (an audit).
    """

    epochs: int = Field(
        240, ge=0, description="passes over the private images, warm-up included; 0: no training, nor a warm-up"
    )
    warmup_epochs: int = Field(
        default_factory=_warmup,
        ge=0,
        description="first epochs, trained without a surrogate and shared by runs; absent: 1",
    )
    batch_size: int = Field(128, ge=2, description="images per step; the incomplete batch of an epoch is left out")
    lr: float = Field(0.05, gt=0, description="SGD's learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD's momentum")
    weight_decay: float = Field(5e-4, ge=0, description="SGD's weight decay")
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (0.25, 0.5, 0.75, 0.875), description="parts of the epochs after which the learning rate falls"
    )
    lr_decay: float = Field(0.2, gt=0, le=1, description="factor of the learning rate at a milestone")
    max_grad_norm: float | None = Field(
        None, gt=0, description="clip the norm of the client's and of the server's gradient; absent: no clipping"
    )
    protocol: Literal["joint", "split"] = Field(
        "joint", description="joint: one backward pass; split: client and server exchange only z and its gradient"
    )
    max_nonfinite: int = Field(
        0, ge=0, description="batches whose surrogate is not finite that a run survives; they go without it, counted"
    )
    probe_every: int = Field(
        10, ge=0, description="epochs between measurements of the leakage by a held-out mixture; 0: none"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="number format of the forward pass")
    threads: int = Field(1, ge=1, le=128, description="CPU threads of a training or attack job")
    reference: Optional["Training"] = Field(
        None,
        description="without training: how the undefended reference is trained, from random weights, which attacks "
        "must invert to count; absent: it is not",
    )

    @property
    def none(self) -> bool:
        """Whether the network is taken as it is given."""
        return self.epochs == 0

    def lr_at(self, epoch: int) -> float:
        """Learning rate of an epoch (from 0): falls by `lr_decay` at each milestone, a part of all epochs.

        The published milestones 60, 120, 180, 210 of 240 are the parts ¼, ½, ¾, ⅞. Source: docs/theory.md,
        "The schedules".
        """
        passed = sum(epoch >= part * self.epochs for part in self.milestones)
        return self.lr * self.lr_decay**passed

    @model_validator(mode="after")
    def _warmup_inside(self) -> "Training":
        if self.none and self.warmup_epochs == 0:
            if self.reference is not None and self.reference.none:
                raise ValueError("reference: expected a training, which has epochs; found none. Leave it out")
            return self
        if self.reference is not None:
            raise ValueError(
                "reference: only where nothing is trained (training: none); found it with a training, by which the "
                "undefended reference is trained, too. Leave it out"
            )
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})")
        return self


TrainingOrNone = Annotated[Training, Also(lambda said: said == "none", Literal["none"], lambda _: Training(epochs=0))]
