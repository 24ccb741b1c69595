"""The attacks every run is scored by, and what each attacker knows."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from cem.config.base import Seed, Slug
from cem.config.decoder import NOTHING_OPEN, FlowFit, Loss, Network, StartingDecoder, TunedFit, parse_decoder
from cem.config.model import ModelSettings
from cem.config.registry import Family, Member

Encoder = Literal["weights", "query", "none"]
_CAN_ASK: tuple[Encoder, ...] = ("query", "weights")
_CHOSEN_ON_ONE = 3  # images of an attacker who holds out one and needs two to fit to


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
    labels: bool = Field(False, description="whether the attacker knows the classes of its images and of those sent")

    possible_encoder: ClassVar[tuple[Encoder, ...]] = ("weights", "query", "none")
    needs_labels: ClassVar[bool] = False
    trained: ClassVar[bool] = True
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
        return _CHOSEN_ON_ONE if self._networks else 2

    @property
    def starts(self) -> tuple[Start, ...]:
        """The files of weights that it starts from."""
        return tuple(
            Start(f"{prefix}weights", path, one.network, one.net, one.of_z)
            for prefix, one in self._networks.items()
            if (path := one.weights_file) is not None
        )

    def check_model(self, model: ModelSettings, side: int) -> None:
        """Raise ValueError where it cannot be run on this network and images of this side."""
        z = model.side_of_z(side)
        ratio = side // z
        if any(one.of_z for one in self._networks.values()) and (ratio * z != side or ratio.bit_count() != 1):
            raise ValueError(
                f"{self.id} cannot attack {model.arch} cut at layer {model.cut_layer}: its network doubles the side of "
                f"z until it is the image's, which must be 1, 2, 4, 8, … times that of z; found z of {z}×{z} and "
                f"images of {side}×{side}. Choose another side, cut_layer or bottleneck, or leave the attack out."
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


class MeanImage(AttackSettings):
    """Answers every z with the mean of the attacker's images: what an attacker who sees nothing would do."""

    kind: Literal["mean_image"] = "mean_image"
    implementation = "cem.attacks.mean_image:MeanImageAttack"
    trained, yardstick = False, True
    encoder: Encoder = Field("none", description="not looked at")


class ClassMean(AttackSettings):
    """Answers with the mean of the attacker's images of the same class: what a label alone gives away."""

    kind: Literal["class_mean"] = "class_mean"
    implementation = "cem.attacks.class_mean:ClassMeanAttack"
    trained, yardstick = False, True
    encoder: Encoder = Field("none", description="not looked at")
    labels: bool = Field(True, description="must be true: the class is all that this attack uses")
    needs_labels = True


class Linear(AttackSettings):
    """Least squares from z to the image, in closed form, with a ridge chosen on images held out by the attacker."""

    kind: Literal["linear"] = "linear"
    implementation = "cem.attacks.linear:LinearAttack"
    trained = False
    possible_encoder = _CAN_ASK

    @property
    def least_images(self) -> int:
        return _CHOSEN_ON_ONE


class Nearest(AttackSettings):
    """The attacker's image whose z is nearest; on private images the scored image itself is left out."""

    kind: Literal["nearest"] = "nearest"
    implementation = "cem.attacks.nearest:NearestAttack"
    trained = False
    possible_encoder = _CAN_ASK


_RUNS: Any = Field(
    "all", description="all: every run; reference: only the undefended runs, such as for a ladder of decoder sizes"
)


class Decoder(TunedFit, AttackSettings):
    """A convolutional decoder trained to turn z into the image."""

    kind: Literal["decoder"] = "decoder"
    implementation = "cem.attacks.decoder:DecoderAttack"
    on_ladder = True
    runs: Literal["all", "reference"] = _RUNS
    possible_encoder = _CAN_ASK

    @property
    def tunes_on_reference(self) -> bool:
        return self.tune == "reference" and len(self.candidates()) > 1

    def tuned(self, choices: dict[str, Any]) -> "AttackSettings":
        if len(self.candidates()) == 1:
            return self
        changes = {"lr": float(choices["lr"]), "net": str(choices["net"]), "loss": Loss(**choices["loss"])}
        return self.model_copy(update=changes | NOTHING_OPEN)


class Gan(Network, AttackSettings):
    """A decoder trained against a critic (WGAN-GP) and towards the image; the published settings are the defaults."""

    kind: Literal["gan"] = "gan"
    implementation = "cem.attacks.gan:GanAttack"
    network = "gan"
    net: str = Field("res_normN4C32", description="the generator: res_normN{blocks}C{channels}, or unet_C{channels}")
    start: Literal["scratch", "decoder"] = Field(
        "scratch", description="where the generator starts: random weights, or a decoder fitted on the same images"
    )
    decoder: StartingDecoder | None = Field(None, description="how that decoder is fitted; its net is the generator's")
    epochs: int = Field(150, ge=0, description="passes over the attacker's images")
    batch_size: int = Field(128, ge=2, description="images per step")
    critic_steps: int = Field(10, ge=1, description="steps of the critic for one of the generator")
    mse_weight: float = Field(1500.0, ge=0, description="weight of the squared error beside the critic's verdict")
    gradient_penalty: float = Field(10.0, ge=0, description="weight of the critic's gradient penalty")
    lr: float = Field(5e-4, gt=0, description="learning rate of the generator's Adam")
    critic_lr: float = Field(5e-3, gt=0, description="learning rate of the critic's Adam")
    held_out: float = Field(0.1, gt=0, lt=0.5, description="part of the attacker's images kept for selection")
    seed: Seed = Field(0, description="seed of the attack's own generators")
    runs: Literal["all", "reference"] = _RUNS
    possible_encoder = _CAN_ASK

    @model_validator(mode="after")
    def _start_is_said(self) -> "Gan":
        if (self.decoder is not None) != (self.start == "decoder"):
            raise ValueError("start: decoder and the settings `decoder` belong together: give both or neither")
        if self.weights is not None and self.decoder is not None:
            raise ValueError("weights and start: decoder both say where the generator starts: leave one out")
        parse_decoder(self.net)
        for name in ("net", "seed", "held_out") if self.decoder is not None else ():
            # seed and held_out decide which images select; the decoder must not have been fitted on the GAN's
            if getattr(self.decoder, name) != getattr(self, name):
                raise ValueError(
                    f"decoder.{name} must be the GAN's, {getattr(self, name)}; found {getattr(self.decoder, name)}"
                )
        return self


class Optimization(AttackSettings):
    """Searches the image whose ẑ is nearest to what was seen, with the encoder's weights at hand."""

    kind: Literal["optimization"] = "optimization"
    implementation = "cem.attacks.optimization:OptimizationAttack"
    encoder: Encoder = Field("weights", description="must be weights: the search runs through the encoder")
    start: Literal["zero", "random", "decoder"] = Field(
        "zero", description="where the search starts: grey, several random images, or a decoder's reconstruction"
    )
    decoder: StartingDecoder | None = Field(None, description="how the decoder is fitted where the search starts there")
    restarts: int = Field(1, ge=1, description="random starts; the one that explains z best is kept")
    steps: int = Field(500, ge=0, description="steps of Adam; fewer are taken where held-out images say so")
    lr: float | None = Field(
        None,
        gt=0,
        description="Adam's learning rate; falls to a hundredth along a cosine; absent: 0.4, or 0.01 from a decoder",
    )
    tv: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (0.0, 1e-3, 1e-2, 3e-2, 1e-1),
        min_length=1,
        description="weights of the total variation to choose from, on images the attacker holds out",
    )
    posterior: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0, 3.0, 10.0, 100.0, 1000.0),
        description="the noise's variance, in parts of what it is, to choose from for another way to search beside "
        "those with a total variation: to the most probable image, where images are Gaussian; empty: not that way",
    )
    range_weight: float = Field(1.0, ge=0, description="weight of what lies outside [0, 1], squared")
    batch_size: int = Field(256, ge=1, description="images optimised together")
    selection_images: int = Field(64, ge=1, description="held-out images that weight and steps are chosen on")
    seed: Seed = Field(0, description="seed of the attack's own generators")
    runs: Literal["all", "reference"] = _RUNS
    possible_encoder = ("weights",)

    @model_validator(mode="after")
    def _start_is_said(self) -> "Optimization":
        if (self.decoder is not None) != (self.start == "decoder"):
            raise ValueError("start: decoder and the settings `decoder` belong together: give both or neither")
        if self.restarts > 1 and self.start != "random":
            raise ValueError(f"restarts: {self.restarts} needs start: random; found {self.start}")
        return self


class ShadowModel(AttackSettings):
    """Asks the encoder nothing: trains one of its own that suits the server's classifier and sends z like those that it
    has seen, then a decoder for it."""

    kind: Literal["shadow_model"] = "shadow_model"
    implementation = "cem.attacks.shadow_model:ShadowModelAttack"
    encoder: Encoder = Field("none", description="must be none: with access to the encoder a decoder does better")
    labels: bool = Field(True, description="must be true: its own encoder learns from the classes of its images")
    seen: int = Field(
        10_000, ge=2, description="z of at most so many private images that it has seen, without the images"
    )
    alignment: float = Field(
        1.0, gt=0, description="weight of looking like the z that were seen, beside the classifier's loss"
    )
    encoder_steps: int = Field(2000, ge=0, description="steps of its own encoder, and of the discriminator")
    encoder_batch_size: int = Field(64, ge=2, description="images, and z that were seen, per step")
    encoder_lr: float = Field(2e-3, gt=0, description="learning rate of that encoder's Adam")
    discriminator_lr: float = Field(
        2e-3, gt=0, description="learning rate of the Adam of the discriminator, which tells its z from those seen"
    )
    gradient_penalty: float = Field(1.0, ge=0, description="weight of the discriminator's gradient penalty")
    decoder: StartingDecoder = Field(StartingDecoder(), description="how the decoder for it is fitted")
    seed: Seed = Field(0, description="seed of its own encoder's generators")
    runs: Literal["all", "reference"] = _RUNS
    possible_encoder = ("none",)
    needs_labels = True

    @property
    def seen_images(self) -> int:
        return self.seen


class Flow(FlowFit, AttackSettings):
    """A flow from noise to the images that z leaves possible: one sample is sharp, the mean of many the best guess."""

    kind: Literal["flow"] = "flow"
    implementation = "cem.attacks.flow:FlowAttack"
    network, on_ladder = "flow", True
    samples: int = Field(16, ge=1, description="samples that an answer is the mean of; 1: a single sharp image")
    steps: int = Field(8, ge=1, description="steps from noise to an image, each of two looks at the network")
    runs: Literal["all", "reference"] = _RUNS
    possible_encoder = _CAN_ASK


class PriorSearch(FlowFit, AttackSettings):
    """Samples images that explain z, with the encoder's weights and a flow fitted to the attacker's images as prior."""

    kind: Literal["prior_search"] = "prior_search"
    implementation = "cem.attacks.prior_search:PriorSearchAttack"
    network, of_z = "prior", False
    encoder: Encoder = Field("weights", description="must be weights: the search runs through the encoder")
    samples: int = Field(4, ge=1, description="samples that an answer is the mean of; 1: a single sharp image")
    steps: int = Field(16, ge=1, description="steps from noise to an image, each of two looks at the prior and at z")
    iterations: int = Field(10, ge=1, description="of conjugate gradients through the encoder, at each look")
    runs: Literal["all", "reference"] = _RUNS
    possible_encoder = ("weights",)


ATTACKS = Family("attack", AttackSettings)
Attack = Annotated[AttackSettings, ATTACKS]
