"""Threat models: what an attacker knows. Numbers are compared within one, never across."""

import math
from dataclasses import dataclass

from cem.config import AttackSettings
from cem.planning.plan import Plan

ACCESS = ("none", "query", "weights")  # to the encoder; each holds those before it
SEPARATOR = "; "  # between the labels of several in one cell of results


@dataclass(frozen=True)
class ThreatModel:
    """What an attacker is given beside the defence and its strength.

    data_size: None is all of the split. seen: of how many private images, at most, it learns from z alone. weights: it
    starts from a file, which may have been fitted to images that it does not own.
    """

    data: str
    data_size: int | None
    encoder: str
    observations: int
    labels: bool
    seen: int = 0
    weights: bool = False

    @classmethod
    def of(cls, attack: AttackSettings) -> "ThreatModel":
        """That an attack is run under."""
        shared = (attack.data, attack.data_size, attack.encoder, attack.observations, attack.labels)
        return cls(*shared, seen=attack.seen_images, weights=bool(attack.starts))

    @property
    def label(self) -> str:
        """In short and in full, such as `private 500, query, 4 observations, labels`; weights of a file at the end."""
        words = [self.data if self.data_size is None else f"{self.data} {self.data_size}", self.encoder]
        words += [f"at most {self.seen} z seen"] if self.seen else []
        words.append("1 observation" if self.observations == 1 else f"{self.observations} observations")
        words.append("labels" if self.labels else "no labels")
        return ", ".join([*words, "weights from a file"] if self.weights else words)

    @property
    def sentence(self) -> str:
        """In words."""
        owner = {"private": "the defender's private images", "shadow": "shadow images (disjoint from the private ones)"}
        few = "" if self.data_size is None else f"{self.data_size} of "
        access = {
            "none": "has no access to the encoder",
            "query": "gets z for its own images",
            "weights": "holds the encoder's weights",
        }
        unpaired = f"has seen z of at most {self.seen} private images without the images, " if self.seen else ""
        times = "once" if self.observations == 1 else f"{self.observations} times, with fresh noise"
        classes = "knows the classes" if self.labels else "knows no classes"
        owned = f"owns {few}{owner[self.data]}"
        found = f"{owned}, {access[self.encoder]}, {unpaired}sees z of each image {times}, and {classes}"
        given = "; it starts from weights of a file, which may have been fitted to other images than its own"
        return found + given if self.weights else found

    def includes(self, other: "ThreatModel") -> bool:
        """Whether this attacker could run what the other runs: it knows as much, or more."""
        sizes = [math.inf if one.data_size is None else one.data_size for one in (self, other)]
        access = [ACCESS.index(one.encoder) for one in (self, other)]
        more = sizes[0] >= sizes[1] and access[0] >= access[1] and self.observations >= other.observations
        more = more and (self.encoder != "none" or self.seen >= other.seen)
        more = more and self.labels >= other.labels and self.weights >= other.weights
        return more and self.data == other.data

    def allows(self, yardstick: "ThreatModel") -> bool:
        """Whether a yardstick, which needs no z, is within reach of this attacker: the same images, no more labels."""
        same = (self.data, self.data_size) == (yardstick.data, yardstick.data_size)
        return same and self.labels >= yardstick.labels


def threat_models(plan: Plan) -> list[ThreatModel]:
    """Those of the attacks on the runs that the study asks for, in the study's order.

    Yardsticks make no threat model of their own, unless the study has nothing else.
    """
    used = {attack.id for run in plan.asked.values() for attack in plan.attacks(run)}
    attacks = [attack for attack in plan.study.attacks if attack.id in used]
    real = [attack for attack in attacks if not attack.yardstick]
    return list(dict.fromkeys(map(ThreatModel.of, real or attacks)))
