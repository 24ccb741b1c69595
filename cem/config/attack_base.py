"""What all attacks share: what each attacker knows, and the files of weights that it starts from."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from cem.config.base import Slug
from cem.config.decoder import Fit, Network
from cem.config.model_base import ModelSettings
from cem.config.registry import Member

Encoder = Literal["weights", "query", "none"]
CHOSEN_ON_ONE = 3  # images of an attacker who holds out one and needs two to fit to


@dataclass(frozen=True)
class Start:
    """A file of weights that an attack starts from.

    setting: the one that names it, such as `decoder.weights`. network, net and of_z: of what network they have to be;
    see `cem.config.decoder.Network`.
    """

    setting: str
    path: str
    network: str
    net: str
    of_z: bool


class AttackSettings(Member):
    """What all attacks share: a name, and what the attacker knows beside the defence and its strength.

    trained: whether it is fitted step by step, in a job of its own whose state is kept; all others of a run share one
    job. yardstick: needs no z, so every other attack is compared with it. on_ladder: decoders that differ in nothing
    but their network are compared by size.
    """

    name: Slug | None = Field(None, description="how results name the attack; absent: its kind")
    data: Literal["private", "shadow"] = Field(
        "private", description="the attacker's images: the defender's own (worst case), or a disjoint set"
    )
    data_size: int | None = Field(None, ge=2, description="how many of them, drawn at random; absent: all of the split")
    encoder: Encoder = Field(
        "query", description="query: gets z for its own images; weights: also holds the encoder; none: neither"
    )
    observations: int = Field(
        1, ge=1, description="times that the attacker sees z of each image, corrupted anew; it takes the mean"
    )
    scored: int | None = Field(
        None, ge=2, description="images of each scope that are scored at most, the first of each; absent: all"
    )
    labels: bool = Field(
        False,
        description="whether the attacker knows the classes of its images and of those sent; only class_mean and "
        "shadow_model use them, for others only the threat model changes",
    )

    possible_encoder: ClassVar[tuple[Encoder, ...]] = ("weights", "query", "none")
    needs_labels: ClassVar[bool] = False
    trained: ClassVar[bool] = True
    trains_encoder: ClassVar[bool] = False  # one like the client's: the network has to be one that can be trained
    yardstick: ClassVar[bool] = False
    on_ladder: ClassVar[bool] = False

    @cached_property  # asked for each file of each run
    def id(self) -> str:
        return self.name if self.name is not None else self.member

    @property
    def reference_only(self) -> bool:
        """Whether only the undefended references are attacked: `runs: reference`, where a member has that setting."""
        return getattr(self, "runs", "all") == "reference"

    @property
    def seen_images(self) -> int:
        """Of how many private images, at most, it learns from z alone."""
        return 0

    @property
    def tunes_on_reference(self) -> bool:
        """Whether settings are open that this attack's result on the undefended reference says."""
        return False

    def tuned(self, choices: dict[str, Any]) -> "AttackSettings":
        """These settings with what was chosen on the reference. Raises KeyError where `choices` does not say it."""
        return self

    @property
    def _networks(self) -> dict[str, Network]:
        """What stands before the name of its settings → each network that it fits, or takes from a file."""
        parts = {"": self} | {f"{name}.": getattr(self, name) for name in type(self).model_fields}
        return {prefix: part for prefix, part in parts.items() if isinstance(part, Network)}

    @property
    def least_images(self) -> int:
        """How many the attacker has to own."""
        return CHOSEN_ON_ONE if self._networks else 2

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The networks that it fits, and how long at most."""
        return tuple(Fit(one.net, one.passes, one.at_image) for one in self._networks.values())

    @property
    def starts(self) -> tuple[Start, ...]:
        """The files of weights that it starts from."""
        return tuple(
            Start(f"{prefix}weights", path, one.network, one.net, one.of_z)
            for prefix, one in self._networks.items()
            if (path := one.weights_file) is not None
        )

    def check_model(self, model: ModelSettings, side: int) -> None:
        """Raise ValueError where settings tell that it cannot be run on this network and images of this side."""
        if not model.has_network and self.encoder != "query" and not self.yardstick:
            raise ValueError(
                f"{self.id} needs the network (encoder: {self.encoder}), and there is none beside activations that are "
                "given: expected an attack with encoder: query, which pairs of image and z are enough for. Leave it out"
            )
        if not model.needs_network:
            self.check_z(model, model.side_of_z(side), side)

    def check_z(self, model: ModelSettings, z: int, side: int) -> None:
        """Raise ValueError where it cannot be run on this network, whose z have side `z` for images of this side."""
        if any(one.of_z for one in self._networks.values()) and z > side:
            raise ValueError(
                f"{self.id} cannot attack {model.label} cut at layer {model.cut_layer}: its network enlarges z until "
                f"it is an image; found z of {z}×{z} and images of {side}×{side}. Choose another side, cut_layer or "
                "bottleneck, or leave the attack out."
            )

    def check_split(self, by: str) -> None:
        """Raise ValueError where it needs the classes of images whose persons are in no other split (`split.by`)."""
        if by == "identity" and self.data == "shadow" and self.labels:
            raise ValueError(
                f"{self.id} cannot use the classes of shadow images where split.by is identity: these persons are "
                "in no other split, so that they say nothing of the images that were sent. Use data: private, "
                + ("or leave the attack out." if self.needs_labels else "or labels: false.")
            )

    @property
    def knowledge_label(self) -> str:
        """The attacker's knowledge in short, such as `shadow 500, query, 4 observations`."""
        words = [self.data if self.data_size is None else f"{self.data} {self.data_size}"]
        words += [] if self.encoder == type(self).model_fields["encoder"].default else [self.encoder]
        words += [f"{self.seen_images} z seen"] if self.seen_images else []
        words += [f"{self.observations} observations"] if self.observations > 1 else []
        return ", ".join([*words, "labels"] if self.labels else words)

    @model_validator(mode="after")
    def _knows_enough(self) -> "AttackSettings":
        kind = self.member
        if self.encoder not in self.possible_encoder:
            raise ValueError(
                f"{kind} needs encoder: {' or '.join(self.possible_encoder)}; found {self.encoder}. "
                + ("Without any access to the encoder, use shadow_model." if self.encoder == "none" else "")
            )
        if self.needs_labels and not self.labels:
            raise ValueError(f"{kind} needs labels: true; an attacker who knows no classes cannot run it")
        return self
