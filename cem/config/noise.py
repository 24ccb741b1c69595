"""The defences that are the noise itself, in place of `noise_std`."""

import math
from typing import Literal

from pydantic import Field, model_validator

from cem.config.defense_base import DefenseSettings


class LocalDp(DefenseSettings):
    """Noise for local differential privacy, of each image's z clipped to a norm where `clip` is given.

    Two images' clipped z are 2 · clip apart at most: then ε speaks of the replacement of one image by another. Without
    a clip, noise is that of two z one apart, as published, which no encoder keeps to: ε is nominal.
    """

    kind: Literal["local_dp"] = "local_dp"
    implementation = "cem.defenses.local_dp:LocalDpDefense"
    strength = "epsilon"
    adds_noise, order = True, 5
    mechanism: Literal["gaussian", "laplace"] = Field("gaussian", description="law of the noise")
    epsilon: float = Field(1.0, gt=0, description="ε, in nats: smaller is more noise")
    delta: float = Field(1e-4, gt=0, lt=1, description="δ of Gaussian noise; Laplace noise has none")
    clip: float | None = Field(
        None, gt=0, description="largest norm of an image's z, L2 for gaussian and L1 for laplace; absent: not clipped"
    )

    @model_validator(mode="after")
    def _delta_of_gaussian(self) -> "LocalDp":
        if self.mechanism == "laplace" and "delta" in self.model_fields_set and self.delta != 1e-4:
            raise ValueError(f"mechanism: laplace has no δ, found delta: {self.delta:g}. Leave delta out")
        return self

    @property
    def scale(self) -> float:
        """σ of the Gaussian noise: Δ √(2 log(1.25/δ)) / ε; b of Laplace's: Δ/ε; Δ = 2 · clip, or 1 without.

        Source: Dwork & Roth 2014, theorem A.1 and definition 3.3.
        """
        distance = 1.0 if self.clip is None else 2 * self.clip
        unit = math.sqrt(2 * math.log(1.25 / self.delta)) if self.mechanism == "gaussian" else 1.0
        return distance * unit / self.epsilon

    @property
    def meaning(self) -> str:
        """What ε says, and of what."""
        if self.clip is None:
            return f"ε = {self.epsilon:g} is nominal: without clip it is an ε of nothing"
        if self.mechanism == "gaussian" and self.epsilon > 1:
            return f"ε = {self.epsilon:g} is nominal: the Gaussian mechanism's σ is proven for ε up to 1"
        more = f", δ = {self.delta:g}" if self.mechanism == "gaussian" else ""
        said = f"ε = {self.epsilon:g}{more} for one look at z when one image is replaced by any other"
        return f"{said}; n looks cost n times as much"

    @property
    def label(self) -> str:
        delta = f"-d{self.delta:g}" if self.mechanism == "gaussian" and self.delta != 1e-4 else ""
        clip = "" if self.clip is None else f"-clip{self.clip:g}"
        return f"{self.mechanism}_dp{self.epsilon:g}{delta}{clip}"


class ShapedNoise(DefenseSettings):
    """Gaussian noise whose mean variance is std², spread over the numbers of z so that the task feels it least.

    `fisher`: by how much the loss curves along each number, as its squared gradients in training say. `learned`: by
    descent on the loss, with the encoder. Every number gets at least `floor` of the mean.
    """

    kind: Literal["shaped_noise"] = "shaped_noise"
    implementation = "cem.defenses.shaped_noise:ShapedNoiseDefense"
    strength = "std"
    adds_noise, needs_training, order = True, True, 5
    std: float = Field(0.025, gt=0, description="σ: root of the mean variance over the numbers of z")
    shape: Literal["fisher", "learned"] = Field("fisher", description="what spreads the variance over the numbers of z")
    floor: float = Field(0.1, gt=0, lt=1, description="least variance of a number, in parts of the mean")

    @property
    def label(self) -> str:
        floor = f"-floor{self.floor:g}" if self.floor != 0.1 else ""
        return f"shaped_noise{self.std:g}-{self.shape}{floor}"


class Vib(DefenseSettings):
    """Variational information bottleneck (Alemi et al. 2017): z ~ N(ẑ, s(ẑ)²), drawn towards N(0, 1).

    Adds weight · KL(N(ẑ, s(ẑ)²) ‖ N(0, 1)) to the objective. log s is a learned 1×1 convolution of ẑ.
    """

    kind: Literal["vib"] = "vib"
    implementation = "cem.defenses.vib:VibDefense"
    strength = "weight"
    adds_noise, needs_training, order = True, True, 5
    weight: float = Field(1e-3, ge=0, description="β: weight of the divergence, in nats per image")
    initial_std: float = Field(0.1, gt=0, description="s everywhere, before it has learned")

    @property
    def label(self) -> str:
        initial = f"-s{self.initial_std:g}" if self.initial_std != 0.1 else ""
        return f"vib{self.weight:g}{initial}"
