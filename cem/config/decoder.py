"""The networks that attacks fit from z to the image, and how: shared by several attacks."""

import re
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from cem.config.base import Seed, Settings
from cem.config.dataset import at_home

_RESIDUAL = re.compile(r"res_normN(?P<blocks>\d+)C(?P<channels>\d+)")
_UNET = re.compile(r"unet_C(?P<channels>\d+)")
RATES = (3e-4, 1e-3, 3e-3)
NOTHING_OPEN: dict[str, Any] = {"lr_sweep": RATES, "loss_sweep": (), "net_sweep": (), "tune": "none"}


def parse_decoder(text: str) -> tuple[int | None, int]:
    """Read `res_normN{blocks}C{channels}` or `unet_C{channels}` (whose blocks are None).

    Raises ValueError when the text is of neither form.
    """
    match = _RESIDUAL.fullmatch(text) or _UNET.fullmatch(text)
    if match is None or int(match["channels"]) < 1:
        raise ValueError(
            f"expected res_normN<blocks>C<channels> or unet_C<channels>, such as res_normN4C32; found {text!r}"
        )
    found = match.groupdict()
    return int(found["blocks"]) if "blocks" in found else None, int(found["channels"])


def grid_of(z: int, side: int) -> tuple[int, int]:
    """The side to which a decoder brings z, by resampling, and how often it then doubles it, until it is the image's.

    That is the side of z itself where 1, 2, 4, 8, … times it are the image's; else the next larger one of which this
    holds: 12 of 28 become 14. Raises ValueError where z is larger than the image.
    """
    if z > side:
        raise ValueError(f"expected a z no larger than the image, found {z} of {side} pixels a side")
    halvings = next(k for k in range(side.bit_length(), -1, -1) if side % (1 << k) == 0 and side >> k >= z)
    return side >> halvings, halvings


class Loss(Settings):
    """What a decoder minimises: a sum of errors, each with its weight."""

    mse: float = Field(1.0, ge=0, description="weight of the mean squared error")
    l1: float = Field(0.0, ge=0, description="weight of the mean absolute error")
    ssim: float = Field(0.0, ge=0, description="weight of 1 − SSIM")

    @model_validator(mode="after")
    def _something(self) -> "Loss":
        if not self.mse + self.l1 + self.ssim:
            raise ValueError("expected a positive weight of mse, l1 or ssim; all are 0")
        return self


class Fit(NamedTuple):
    """How much a network is fitted, at most. passes: over the attacker's images, in passes of a decoder.

    at_image: whether it works at the image's resolution, and not at z's.
    """

    net: str
    passes: float
    at_image: bool


class Network(Settings):
    """A network that an attack fits, or takes from a file as it is.

    network: what a file of its weights says that they are of. of_z: whether it is told z. at_image: see `Fit`.
    """

    weights: str | None = Field(
        None,
        min_length=1,
        description="path of a file of weights, from `cem attack export`, that the network starts from; with epochs: 0 "
        "it is used as it is",
    )

    network: ClassVar[str]
    of_z: ClassVar[bool] = True
    at_image: ClassVar[bool] = False

    if TYPE_CHECKING:  # every one has it, with a default of its own

        @property
        def net(self) -> str: ...

    @property
    def passes(self) -> float:
        """See `Fit`; 0 for a network whose class does not say."""
        return 0.0

    @property
    def weights_file(self) -> str | None:
        """The path, with the home folder for `~`."""
        return next(iter(at_home(self.weights)), None)


class NetworkFit(Network):
    """How long a network is fitted, and on what."""

    budget: Literal["auto", "epochs"] | None = Field(
        None,
        description="auto: budgets of 4, 8, 16, … epochs until one brings less than 1 %; epochs: as many as are given; "
        "absent: epochs where these are given, else auto",
    )
    max_epochs: int = Field(256, ge=8, description="with budget auto: the largest budget that is tried")
    epochs: int | None = Field(None, ge=0, description="with budget epochs: passes over the attacker's images at most")
    patience: int | None = Field(
        None,
        ge=1,
        description="with budget epochs: epochs without a better held-out error after which the fit ends; absent: no "
        "early end",
    )
    batch_size: int = Field(256, ge=2, description="images per step")
    held_out: float = Field(0.1, gt=0, lt=0.5, description="part of the attacker's images kept for selection")
    seed: Seed = Field(0, description="seed of the attack's own generators")

    @model_validator(mode="after")
    def _one_budget(self) -> "NetworkFit":
        if self.budget is not None and (self.budget == "epochs") != (self.epochs is not None):
            raise ValueError(
                f"budget: {self.budget} {'needs' if self.epochs is None else 'leaves no place for'} epochs"
            )
        if self.epochs is not None and self.max_epochs != type(self).model_fields["max_epochs"].default:
            raise ValueError("max_epochs belongs to budget: auto; leave it or epochs out")
        if self.patience is not None and self.epochs is None:
            raise ValueError("patience needs epochs; a budget that is found (budget: auto) ends by itself")
        return self

    @property
    def passes(self) -> float:
        """Passes over the images at most; the cool-downs of all budgets are a quarter of the largest."""
        return 1.25 * self.max_epochs if self.epochs is None else float(self.epochs)

    @property
    def used_as_it_is(self) -> bool:
        """Whether the network of a file answers without any fit."""
        return self.weights is not None and self.epochs == 0


class DecoderFit(NetworkFit):
    """How a decoder is fitted."""

    network = "decoder"
    net: str = Field("res_normN4C32", description="res_normN{blocks}C{channels}, or unet_C{channels}")
    loss: Loss = Field(Loss(), description="what is minimised; selection is by the squared error all the same")
    weight_decay: float = Field(1e-4, ge=0, description="Adam's weight decay")

    @field_validator("net")
    @classmethod
    def _net_form(cls, value: str) -> str:
        parse_decoder(value)
        return value


_FIXED_LR: Any = Field(1e-3, gt=0, description="Adam's learning rate, from which it falls; see budget")


class StartingDecoder(DecoderFit):
    """The decoder that another attack starts from or ends with."""

    lr: float = _FIXED_LR


class TunedFit(DecoderFit):
    """How a decoder is fitted, and what of it is chosen by short fits."""

    lr: float | None = Field(None, gt=0, description="Adam's learning rate; absent: chosen from lr_sweep, see tune")
    tune: Literal["none", "reference", "run"] = Field(
        "reference",
        description="where what is open is chosen, by short fits: on the undefended reference, once for all runs; on "
        "each run; none: nothing is open, and the learning rate is 0.001 unless it is given",
    )
    lr_sweep: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        RATES, min_length=1, description="learning rates to choose from, unless lr is given"
    )
    loss_sweep: tuple[Loss, ...] = Field((), description="losses to choose from; empty: loss")
    net_sweep: tuple[str, ...] = Field((), description="networks to choose from; empty: net")

    @field_validator("net_sweep")
    @classmethod
    def _nets_form(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for net in value:
            parse_decoder(net)
        return value

    @model_validator(mode="after")
    def _nothing_twice(self) -> "TunedFit":
        for name in ("net", "loss"):
            swept = getattr(self, f"{name}_sweep")
            if swept and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"expected {name} or {name}_sweep, found both: leave one out")
            if swept and self.tune == "none":
                raise ValueError(f"tune: none leaves no place for {name}_sweep: set tune: reference, or run")
        if self.tune == "none" and self.lr_sweep != RATES:
            raise ValueError("tune: none leaves no place for lr_sweep: give lr, or set tune: reference, or run")
        if self.weights is not None and self.net_sweep:
            raise ValueError("weights are of one network, and leave no place for net_sweep: give net")
        if self.used_as_it_is and (self.loss_sweep or self.lr_sweep != RATES):
            raise ValueError(
                "weights with epochs: 0 are used as they are, and leave no place for lr_sweep or loss_sweep: leave "
                "these out, or give more epochs"
            )
        return self

    @property
    def _open(self) -> dict[str, tuple[Any, ...]]:
        """Setting → what it is chosen from, of those with more than one choice or none given."""
        found: dict[str, tuple[Any, ...]] = {"net": self.net_sweep, "loss": self.loss_sweep}
        if self.lr is None:
            found["lr"] = (1e-3,) if self.tune == "none" or self.used_as_it_is else self.lr_sweep
        return {name: values for name, values in found.items() if values}

    def candidates(self) -> dict[str, "TunedFit"]:
        """What is chosen from, by name: these settings with one choice of each that is open, and nothing open."""
        found = {}
        for values in product(*self._open.values()):
            chosen = dict(zip(self._open, values, strict=True))
            words = (f"{name} {_words(value)}" for name, value in chosen.items())
            found[", ".join(words)] = self.model_copy(update=NOTHING_OPEN | chosen)
        return found

    def short(self) -> "TunedFit":
        """As it is fitted when it is one of several candidates."""
        return self.model_copy(
            update={"budget": None if self.budget == "epochs" else self.budget, "epochs": None, "patience": None}
        )

    @property
    def choices(self) -> dict[str, Any]:
        """Of a candidate, what may have been chosen, in JSON's types."""
        return {"lr": self.lr, "net": self.net, "loss": self.loss.model_dump()}


def _words(value: Any) -> str:
    """A choice as messages and results name it."""
    if isinstance(value, Loss):
        return " + ".join(f"{weight:g} {name}" for name, weight in value.model_dump().items() if weight)
    return f"{value:g}" if isinstance(value, float) else str(value)


class FlowFit(NetworkFit):
    """How a flow from noise to images is fitted."""

    at_image = True
    net: str = Field("unet_C32", description="unet_C{channels}: the network that gives the velocity")
    batch_size: int = Field(64, ge=2, description="images per step")
    lr: float = _FIXED_LR
    selection_images: int = Field(
        128, ge=1, description="how many of the held-out images are answered, at most, to say how good the answers are"
    )

    @field_validator("net")
    @classmethod
    def _is_unet(cls, value: str) -> str:
        if parse_decoder(value)[0] is not None:
            raise ValueError(f"expected unet_C<channels>, such as unet_C32; found {value!r}")
        return value
