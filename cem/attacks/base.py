"""What an attacker may see, what an attack is, and what both share."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cem import CemError
from cem.config import AttackSettings, DefenseSettings, ModelSettings
from cem.jobs.process import make_generator
from cem.jobs.state import StateStore
from cem.types import Images, Labels, RawImages, Smashed

CurveRow = dict[str, int | float]  # column → value, of one epoch
SeenZ = Float[Tensor, "seen z_channel z_height z_width"]  # of other images than those beside it
Rows = Int[Tensor, " rows"] | slice
CHUNK_PIXELS = 256 * 32 * 32  # pixels of the images handled at once: bounds memory at every image size


class AttackError(CemError):
    """An attack that cannot be run on this data, or that failed."""


@dataclass(frozen=True)
class Knowledge:
    """All an attacker has. What its settings do not grant is absent, and the scored images are always out of reach.

    images: [n, channel, height, width], 0 to 255, on `device`. labels: [n], on `device`; None: not known.
    observe: `observe(rows, generator)` gives what the client sends for its images, corrupted anew from the generator
    (on `device`); the mean of them where it observes several times. The clean ẑ stays out of reach. Raises AttackError
    for an attacker who cannot ask the encoder.
    seed: of the attacker's generators; those that corrupt the scored images are apart from it.
    masked: the defence sets values of z to zero, so a zero says that the value is hidden.
    corrupt: the defence, which is public: what becomes of a ẑ that the attacker made itself; on observations, too.
    stds: the channel's noise, which is as public: its standard deviation in each number of z [batch, channel, height,
    width] for these outputs of `encoder`, in one look; None: the same in all.
    encoder: the client's, frozen, in evaluation mode; None: not known.
    server: the server's classifier, and what encoder belongs to it; None: not known.
    seen: z of private images, on `device`, as the client sent them and without the images, in an order that says
    nothing; None: this attacker kept none.
    """

    images: RawImages
    labels: Labels | None
    observe: Callable[[Rows, torch.Generator], Smashed]
    seed: int
    device: torch.device
    masked: bool = False
    corrupt: Callable[[Smashed, torch.Generator], Smashed] | None = None
    stds: Callable[[Smashed], Smashed] | None = None
    encoder: nn.Module | None = None
    server: "Server | None" = None
    seen: SeenZ | None = None

    def __post_init__(self) -> None:
        if self.num_images < 2:
            raise AttackError(
                f"Expected at least 2 images of the attacker, found {self.num_images}. Enlarge its split."
            )

    @property
    def num_images(self) -> int:
        """How many images the attacker owns."""
        return len(self.images)

    def targets(self, rows: Rows) -> Images:
        """Images of the given rows, in [0, 1]."""
        return self.images[rows].float() / 255

    def generator(self, purpose: str, device: torch.device | str | None = None) -> torch.Generator:
        """One of the attacker's generators, a stream of its own for each purpose; absent device: the data's."""
        return make_generator(self.seed, f"attacker/{purpose}", self.device if device is None else device)


@dataclass(frozen=True)
class Server:
    """What the server holds: its classifier (frozen, in evaluation mode), and the design of the encoder before it.

    defenses: of the run; some have a layer in the encoder.
    """

    classifier: nn.Module
    model: ModelSettings
    num_classes: int
    defenses: tuple[DefenseSettings, ...] = ()


@dataclass(frozen=True)
class Rung:
    """A budget that was tried: epochs, held-out squared error at its end, seconds from the start of the fit to there.

    The seconds hold those of the budgets before it.
    """

    epochs: int
    val_mse: float
    seconds: float


@dataclass(frozen=True)
class Fitted:
    """What a fit has to say for itself, in JSON's types.

    parameters: how many numbers were fitted. held_out_mse: squared error on images of the attacker's that were not
    fitted to; it decides which attack is taken for the strongest, before any other image is looked at. None: not known.
    curve: one row per epoch. ladder: the budgets that were tried, where the fit chose its own. converged: None where
    the word has no meaning. choices: what the attacker selected on images it held out. failure: why the fit is no
    attack; empty: it is one.
    """

    parameters: int
    held_out_mse: float | None = None
    curve: list[CurveRow] = field(default_factory=list)
    ladder: list[Rung] = field(default_factory=list)
    converged: bool | None = None
    choices: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@runtime_checkable
class Attack(Protocol):
    """Model inversion: learns from the attacker's knowledge to turn z into the image.

    The implementation of a member of the family is called with its settings and with where it may keep its state, and
    gives an object like this one.
    """

    def fit(self, knowledge: Knowledge) -> Fitted:
        """Learn. Raises AttackError when there are too few images or the fit fails."""

    def reconstruct(
        self, smashed: Smashed, own: Int[Tensor, " batch"] | None = None, labels: Labels | None = None
    ) -> Images:
        """Images in [0, 1] for z, without gradients for the caller, after `fit`.

        own: rows of the attacker's images that these z belong to, −1 where they are of none; an attack that answers
        with one of its images leaves out the one in question. labels: classes of the images, when they are known.
        """


class ClosedFormAttack:
    """An attack that is fitted in a moment: it needs neither its settings nor a place for a state."""

    def __init__(self, cfg: AttackSettings | None = None, store: StateStore | None = None) -> None:
        pass


def hold_out(num_images: int, part: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Divide rows 0 … n − 1 (n ≥ 2) at random into rows to fit on and rows to select on; both ascend."""
    held = max(1, math.floor(part * num_images))
    order = torch.randperm(num_images, generator=generator)
    return order[held:].sort().values, order[:held].sort().values


def chunks(shape: Sequence[int]) -> Iterator[slice]:
    """Consecutive rows, about CHUNK_PIXELS pixels at a time, of images of shape [batch, channel, height, width]."""
    size = max(1, CHUNK_PIXELS // (shape[-2] * shape[-1]))
    for start in range(0, shape[0], size):
        yield slice(start, min(start + size, shape[0]))
