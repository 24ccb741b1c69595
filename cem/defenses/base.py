"""A run's defence: the noise, then the mechanisms that its settings list, each in its own place."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import DefenseSettings
from cem.defenses.channel import Channel
from cem.defenses.noise import GaussianNoise
from cem.types import Images, Smashed


class Mechanism:
    """One defence. This one does nothing: a defence overrides what it does.

    The implementation of a member of the family is called with its settings and gives an object like this one.
    """

    @property
    def channel(self) -> Channel | None:
        """The noise that it adds; None: it adds none. It `act`s by preparing z and sending it through."""
        return None

    def prepare(self, clean: Smashed) -> Smashed:
        """What it makes of ẑ before the noise; the same of the same ẑ."""
        return clean

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        """What becomes of z, in training and wherever z leaves the client. The generator is on z's device."""
        return smashed

    def penalty(self, images: Images, clean: Smashed) -> Float[Tensor, ""] | None:
        """Its term of the objective, weight included; None: it has none."""
        return None


@dataclass(frozen=True)
class Defense:
    """A channel, then what the mechanisms do in their order; and the penalties that training pays.

    The channel is the noise of `noise_std`; where that is 0, the first mechanism that is one. What acts at inference
    acts in training and in the attack, too. The channel comes first: by data processing, a bound on I(x; z) of what it
    gives then holds for whatever the mechanisms leave of it.
    """

    noise_std: float
    settings: tuple[DefenseSettings, ...] = ()
    mechanisms: tuple[Mechanism, ...] = ()

    def prepare(self, clean: Smashed) -> Smashed:
        """What is given to the channel when the encoder's output is ẑ."""
        return clean if self._first is None else self._first.prepare(clean)

    @property
    def prepares(self) -> bool:
        """Whether the channel is given anything but ẑ."""
        return self._first is not None and type(self._first).prepare is not Mechanism.prepare

    @cached_property
    def channel(self) -> Channel:
        """The first noise on the way out; sized 0 where there is none."""
        own = None if self._first is None else self._first.channel
        return GaussianNoise(self.noise_std) if own is None else own

    @cached_property
    def _first(self) -> Mechanism | None:
        """The mechanism that is the channel."""
        if self.noise_std > 0:
            return None
        return next((mechanism for mechanism in self.mechanisms if mechanism.channel is not None), None)

    @property
    def _acting(self) -> list[Mechanism]:
        return [mechanism for mechanism in self.mechanisms if mechanism is not self._first]

    def corrupt(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        """What leaves the client when the encoder's output is ẑ. The generator must be on ẑ's device."""
        z = self.channel.send(self.prepare(clean), generator)
        for mechanism in self._acting:
            z = mechanism.act(z, generator)
        return z

    @property
    def masks(self) -> bool:
        """Whether it sets values of z to zero: a zero then says that the value is hidden."""
        return any(settings.masks for settings in self.settings)

    @property
    def only_channel(self) -> bool:
        """Whether what leaves the client is what the channel gives: no mechanism acts on it."""
        return all(type(mechanism).act is Mechanism.act for mechanism in self._acting)

    @property
    def only_hides(self) -> bool:
        """Whether all that acts on what the channel gives sets values to zero, and does nothing else."""
        acting = [
            type(mechanism).act is not Mechanism.act and mechanism is not self._first for mechanism in self.mechanisms
        ]
        return all(settings.masks for settings, acts in zip(self.settings, acting, strict=True) if acts)

    def observe(self, clean: Smashed, generator: torch.Generator, times: int) -> Smashed:
        """What an attacker makes of the same ẑ sent several times: the mean of what it saw, hidden values left out.

        A value that was hidden every time is zero.
        """
        if times == 1:
            return self.corrupt(clean, generator)
        total, seen = torch.zeros_like(clean), torch.zeros_like(clean)
        for _ in range(times):
            z = self.corrupt(clean, generator)
            total += z
            seen += (z != 0) if self.masks else 1
        return total / seen.clamp_min(1)

    def penalty(self, images: Images, clean: Smashed) -> Float[Tensor, ""]:
        """Sum of the defence's terms of the objective."""
        terms = [term for mechanism in self.mechanisms if (term := mechanism.penalty(images, clean)) is not None]
        return sum(terms[1:], terms[0]) if terms else clean.new_zeros(())


def make_defense(noise_std: float, defenses: Iterable[DefenseSettings]) -> Defense:
    """The defence that a run's settings ask for: noise of σ = `noise_std`, then `defenses` in their order."""
    settings = tuple(sorted(defenses, key=lambda cfg: (cfg.order, cfg.member)))
    return Defense(noise_std, settings, tuple(cfg.load()(cfg) for cfg in settings))
