"""A search on held-out images: what it came to after some of its steps, the best of them, the verdict."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cem.attacks.base import CurveRow
from cem.types import Images, PerImage

MIN_STEPS = 5  # below, a search says nothing about its convergence
LATE = 0.6  # part of the steps after which little may be left to gain
SHARE = 0.05  # part of the whole fall that is little
IMPROVEMENT = 0.02  # part of the error that is little


@dataclass(frozen=True)
class Answer:
    """What a search says at some step: images in [0, 1], how much of z they leave unexplained, which are finite."""

    images: Images
    residual: PerImage
    finite: Bool[Tensor, " batch"]


@dataclass(frozen=True)
class Look:
    """At held-out images, after some step: squared error and residual of each, and whether it is finite."""

    error: PerImage
    residual: PerImage
    finite: Bool[Tensor, " batch"]
    seconds: float


@dataclass(frozen=True)
class Trial:
    """The search on held-out images along one way, looked at after some of its steps.

    decays: its steps get ever smaller, by a schedule over the whole of them.
    """

    steps: list[int]
    errors: Float[Tensor, "look image"]
    residuals: Float[Tensor, "look image"]
    finite: Bool[Tensor, "look image"]
    seconds: list[float]  # since the search began
    decays: bool = True

    @classmethod
    def of(cls, parts: list[list[Look]], steps: list[int], decays: bool = True) -> "Trial":
        """Of a search that went over the images in parts."""

        def joined(values: Callable[[Look], Tensor]) -> Tensor:
            return torch.cat([torch.stack([values(look) for look in part]) for part in parts], dim=1).cpu()

        seconds = [sum(looks) for looks in zip(*([look.seconds for look in part] for part in parts), strict=True)]
        return cls(
            steps,
            joined(lambda look: look.error),
            joined(lambda look: look.residual),
            joined(lambda look: look.finite),
            seconds,
            decays,
        )

    @property
    def look(self) -> int:
        """The one with the least error."""
        return int(self.errors.mean(1).argmin())

    @property
    def error(self) -> float:
        return self.errors.mean(1)[self.look].item()

    @property
    def start_error(self) -> float:
        return self.errors[0].mean().item()

    @property
    def curve(self) -> list[CurveRow]:
        """Rows with the step as `epoch`, as reports call what goes on to the right; residual: median over images."""
        began = [0.0, *self.seconds]
        return [
            {
                "epoch": step,
                "val_mse": self.errors[look].mean().item(),
                "residual": self.residuals[look].median().item(),
                "seconds": self.seconds[look] - began[look],
            }
            for look, step in enumerate(self.steps)
        ]

    @property
    def converged(self) -> bool | None:
        """Whether more steps would bring little. None below MIN_STEPS steps.

        Where steps do not decay: half of them did as well, to 2 %. Else: the last two fifths of the steps, a tenth of
        the way by the learning rate, had little left to do. Little is at most 5 % of the whole fall of the residual,
        and of the error at most that or 2 % of what is left. (At the very end a cosine lets nothing fall any more,
        however far it is from done.) True where the search is best stopped before its end.
        """
        if self.steps[-1] < MIN_STEPS:
            return None
        if not self.decays:
            half = sum(step <= self.steps[-1] / 2 for step in self.steps)
            return bool(self.errors[:half].mean(1).min() <= (1 + IMPROVEMENT) * self.error)
        if self.look < len(self.steps) - 1:
            return True
        late = next(look for look, step in enumerate(self.steps) if step >= LATE * self.steps[-1])
        falls = [(v[0] - v[-1], v[late] - v[-1], v[late]) for v in (self.residuals.mean(1), self.errors.mean(1))]
        (explained, explained_late, _), (whole, whole_late, left) = falls
        residual_done = explained_late <= SHARE * explained
        error_done = whole_late <= SHARE * whole or whole_late <= IMPROVEMENT * left
        return bool(residual_done and error_done)

    @property
    def failure(self) -> str:
        """Whether the search by Adam overflows, be it after the step it is best stopped at."""
        lost = int((~self.finite[-1]).sum())
        if not lost:
            return ""
        count = self.finite.shape[1]
        return f"{lost} of {count} held-out images are not finite after {self.steps[-1]} steps: lower lr"
