"""The leakage of a channel from both sides, at one size of its noise or several, of images unseen by any density."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cem.defenses import Channel
from cem.mixture.family import Family, Scored, least
from cem.mixture.pairs import Contrast, Pairs

_MOST_PAIRS = 4096  # images held against each other: two matrices of 128 MiB
_PAIR_BYTES = 256 << 20  # of their ẑ in float64
_SLOPE_IMAGES = 1024  # that the estimate's slope is tested on
_FIRST = 2.0**-12  # of the images' distance: where the search for a σ starts that is 0 in the study
Draws = Callable[[str], torch.Generator]  # a new generator for a purpose: the same at each call


@dataclass(frozen=True)
class Sandwich:
    """The leakage through a channel, in nats per image.

    upper: log p(z|x) − log q(z) of each test image, of the member that did best on val; infinite without noise, where
    no member is chosen (""). contrast: the lower bound and its twin, of some of these images under the same noise.
    """

    channel: Channel
    member: str
    upper: Float[Tensor, " n"]
    contrast: Contrast


class Leakage:
    """Measures channels of one law, such as Gaussian noise of several σ, all with the same draws of unit noise.

    law: any of these channels. The population is that which test stands for: each class as its test images are, in its
    share of test. These shares are π; they define the population and are no part of what is estimated. some: clean ẑ of
    some test images.
    """

    def __init__(self, val: Scored, test: Scored, draws: Draws, law: Channel) -> None:
        self.val, self.test, self.draws, self.law = val, test, draws, law
        smashed, noise = self._some()
        self.some = smashed[:: -(-len(smashed) // _SLOPE_IMAGES)]  # all classes, where these are in order
        self.pairs = Pairs(smashed, noise)

    def _some(self) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
        """Clean ẑ and noise of the test images that are held against each other: all, or some drawn at random."""
        count, kept, start = len(self.test.labels), None, 0
        smashed: list[Tensor] = []
        noise: list[Tensor] = []
        draws, choice = self.draws("scoring"), self.draws("pairs")
        for part, _ in self.test.chunks():
            if kept is None:
                most = min(count, _MOST_PAIRS, max(2, _PAIR_BYTES // (8 * part.shape[1])))
                kept = torch.zeros(count, dtype=torch.bool, device=part.device)
                kept[torch.randperm(count, generator=choice, device=part.device)[:most]] = True
            drawn, mask = self.law.unit(part, draws), kept[start : start + len(part)]
            smashed.append(part[mask])
            noise.append(drawn[mask])
            start += len(part)
        return torch.cat(smashed), torch.cat(noise)

    def unsaturated(self, channel: Channel) -> Channel:
        """The first size of the noise, 1, 2, 4, … times the channel's, at which the lower bound is not saturated.

        From a small size where there is no noise.
        """
        found = channel.sized(channel.noise_std or _FIRST * self.pairs.spread or 1.0)
        while self.pairs.at(found).saturated:
            found = found.sized(2 * found.noise_std)
        return found

    def at(self, channel: Channel, family: Family) -> Sandwich:
        """Both bounds of a channel: the member is chosen on val, and scored on test under another draw."""
        contrast = self.pairs.at(channel)
        if channel.noise_std == 0:
            return Sandwich(channel, "", torch.full_like(self.test.labels, torch.inf, dtype=torch.float64), contrast)
        on_val = family.information(family.members, self.val, channel, self.draws("selection"))
        member = least(on_val)
        on_test = family.information([member], self.test, channel, self.draws("scoring"))
        return Sandwich(channel, member, on_test[member], contrast)
