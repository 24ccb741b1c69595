"""The attacks every run is scored by. What they share is in `cem.config.attack_base`."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cem.config.attack_base import CHOSEN_ON_ONE, AttackSettings, Encoder
from cem.config.base import Seed
from cem.config.decoder import NOTHING_OPEN, FlowFit, Loss, Network, StartingDecoder, TunedFit, parse_decoder
from cem.config.registry import Family

_CAN_ASK: tuple[Encoder, ...] = ("query", "weights")


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
        return CHOSEN_ON_ONE


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
    """A decoder trained against a critic (WGAN-GP) and towards the image; rates and weights as published."""

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

    @property
    def passes(self) -> float:
        """A step is 2.3 of a decoder's by its multiplications: the critic on images and answers, and its penalty."""
        return 2.3 * self.epochs


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
        (1.0, 3.0, 10.0, 100.0, 1e3, 1e4),
        description="the noise's variance, in parts of what it is, to choose from for another way to search beside "
        "those with a total variation: to the most probable image, where images are Gaussian; empty: not that way",
    )
    posterior_steps: int = Field(40, ge=1, description="steps of that way, at most `steps`; each is a long one")
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
    """Asks the encoder nothing: trains one of its own that stands in for it, then a decoder for that.

    Its own encoder has to suit the server's classifier, and to send z like those that the attacker has seen.
    """

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
    trains_encoder = True

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


ATTACKS = Family("attack", AttackSettings, modules=(__name__,))
Attack = Annotated[AttackSettings, ATTACKS]
