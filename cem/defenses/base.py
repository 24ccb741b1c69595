"""A run's defence: the noise, then the mechanisms that its settings list, each in its own place."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import DefenseSettings
from cem.defenses.noise import add_noise
from cem.types import Images, Smashed


class Mechanism:
    """One defence. This one does nothing: a defence overrides what it does.

    The implementation of a member of the family is called with its settings and gives an object like this one.
    """

    def act(self, smashed: Smashed, generator: torch.Generator) -> Smashed:
        """What becomes of z, in training and wherever z leaves the client. The generator is on z's device."""
        return smashed

    def penalty(self, images: Images, clean: Smashed) -> Float[Tensor, ""] | None:
        """Its term of the objective, weight included; None: it has none."""
        return None


@dataclass(frozen=True)
class Defense:
    """Noise, then what the mechanisms do in their order; and the penalties that training pays.

    What acts at inference acts in training and in the attack, too. The noise comes first: by data processing, a bound
    on I(x; ẑ + ε) then holds for whatever the mechanisms leave of it.
    """

    noise_std: float
    settings: tuple[DefenseSettings, ...] = ()
    mechanisms: tuple[Mechanism, ...] = ()

    def corrupt(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        """What leaves the client when the encoder's output is ẑ. The generator must be on ẑ's device."""
        z = add_noise(clean, self.noise_std, generator)
        for mechanism in self.mechanisms:
            z = mechanism.act(z, generator)
        return z

    @property
    def masks(self) -> bool:
        """Whether it sets values of z to zero: a zero then says that the value is hidden."""
        return any(settings.masks for settings in self.settings)

    @property
    def only_noise(self) -> bool:
        """Whether what leaves the client is ẑ + ε: no mechanism acts on z."""
        return all(type(mechanism).act is Mechanism.act for mechanism in self.mechanisms)

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
