"""Defences: what is applied before z leaves the client, and terms added to the encoder's objective."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.config import Defense as DefenseConfig
from cem.config import Dropout, NoPeek, TopK
from cem.defenses.corruption import add_noise, drop, keep_largest
from cem.defenses.nopeek import distance_correlation
from cem.types import Images, Smashed

__all__ = ["Defense", "make_defense"]


@dataclass(frozen=True)
class Defense:
    """Noise, then masks; and terms of the training objective. What acts at inference acts in training and attack too.

    The noise comes first: by data processing, a bound on I(x; ẑ + ε) then holds for whatever the masks leave of it.
    """

    noise_std: float
    dropout_rate: float = 0.0
    pruned_fraction: float = 0.0
    nopeek_weight: float = 0.0

    def corrupt(self, clean: Smashed, generator: torch.Generator) -> Smashed:
        """What leaves the client when the encoder's output is ẑ. The generator must be on ẑ's device."""
        z = add_noise(clean, self.noise_std, generator)
        if self.dropout_rate:
            z = drop(z, self.dropout_rate, generator)
        return keep_largest(z, self.pruned_fraction) if self.pruned_fraction else z

    @property
    def masks(self) -> bool:
        """Whether it sets values of z to zero: a zero then says that the value is hidden."""
        return bool(self.dropout_rate or self.pruned_fraction)

    def observe(self, clean: Smashed, generator: torch.Generator, times: int) -> Smashed:
        """What an attacker computes from the same ẑ sent several times: the mean of what it saw, without hidden values.

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
        """Sum of the defence's terms in the objective."""
        if not self.nopeek_weight:
            return clean.new_zeros(())
        return self.nopeek_weight * distance_correlation(images, clean)


def make_defense(noise_std: float, defenses: Iterable[DefenseConfig]) -> Defense:
    """The defence a run's settings ask for."""
    settings: dict[str, float] = {}
    for cfg in defenses:
        match cfg:
            case Dropout():
                settings["dropout_rate"] = cfg.rate
            case TopK():
                settings["pruned_fraction"] = cfg.fraction
            case NoPeek():
                settings["nopeek_weight"] = cfg.weight
    return Defense(noise_std, **settings)
