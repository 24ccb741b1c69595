"""A flow from noise to images: its path, its loss, its samples. Fitted by the attacks `flow` and `prior_search`."""

import hashlib
from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from cem.attacks.standard import Standardised
from cem.models.velocity import Features, Velocity
from cem.types import Images, Smashed

Field = Callable[[Images, float], Images]  # noisy images, their time → their velocity
Samples = Float[Tensor, "batch sample channel height width"]


class FlowNet(nn.Module):
    """Samples of images, given z or not, from a velocity along x_t = (1 − t) · ε + t · x, with ε ~ N(0, I).

    x: the image, less `mean`, over `scale`. reader: gives what z says; None: the flow is not told any z.
    The ε of an image is drawn from a generator that z itself chooses, so the answer is a function of z: whatever stands
    beside it, and however often it is asked for.
    """

    mean: Float[Tensor, "channel height width"]
    scale: Float[Tensor, ""]

    def __init__(
        self,
        velocity: Velocity,
        reader: Standardised | None,
        mean: Float[Tensor, "channel height width"],
        scale: Float[Tensor, ""],
        samples: int,
        steps: int,
        draws: Callable[[str], torch.Generator],
    ) -> None:
        """Samples: of which the mean is the answer. steps: to each. draws: the generator, on the CPU, of a name."""
        super().__init__()
        self.velocity, self.reader, self.draws, self.samples, self.steps = velocity, reader, draws, samples, steps
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, smashed: Smashed) -> Images:
        """The mean of the samples, in [0, 1]; not finite where the network overflows."""
        return self.sample(smashed, self.samples).mean(1)

    def loss(
        self, images: Images, smashed: Smashed | None, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Squared error of the velocity, E ‖v(x_t, t, z) − (x − ε)‖² per pixel, and that of the image it points to.

        The times of a batch are one draw from each of as many equal parts of [0, 1]. The second error is of
        x_t + (1 − t) · v, in units of the images: x_t gives most of them away at late times.
        Source: Lipman et al. 2023 (arXiv 2210.02747), eq. 23 with σ_min = 0; Liu, Gong & Liu 2023
        (arXiv 2209.03003), eq. 1.
        """
        x = (images - self.mean) / self.scale
        noise = torch.randn(x.shape, generator=generator, device=x.device)
        part = torch.arange(len(x), device=x.device)
        time = (part + torch.rand(len(x), generator=generator, device=x.device)) / len(x)
        at = time.view(-1, 1, 1, 1)
        velocity = self.velocity((1 - at) * noise + at * x, time, self.features(smashed))
        target = x - noise
        image_error = ((1 - at) * self.scale * (velocity - target).detach()).square().mean()
        return mse_loss(velocity, target), image_error

    def features(self, smashed: Smashed | None) -> Features | None:
        """What z says, the same at all times."""
        if self.reader is None or smashed is None:
            return None
        features: Tensor = self.reader(smashed)
        return features

    def sample(self, smashed: Smashed, count: int, heed: Callable[[], None] = lambda: None) -> Samples:
        """So many images for each z, in [0, 1]; not finite where something overflows. heed: called at each look."""
        noise, velocity = self.noise(smashed, count), self.field(smashed, count)

        def heeding(x: Images, time: float) -> Images:
            heed()
            return velocity(x, time)

        return self.images(integrate(heeding, noise.flatten(0, 1), self.steps)).view_as(noise)

    def field(self, smashed: Smashed, count: int) -> Field:
        """The velocity that takes `count` samples of each z, one after another, to their images."""
        features = self.features(smashed)
        told = None if features is None else features.repeat_interleave(count, dim=0)
        return lambda x, time: self.at(x, time, told)

    def at(self, x: Images, time: float, features: Features | None = None) -> Images:
        """The velocity of standardised noisy images, all at one time."""
        velocity: Tensor = self.velocity(x, torch.full((len(x),), time, device=x.device), features)
        return velocity

    def noise(self, smashed: Smashed, count: int) -> Samples:
        """Where the samples of each z start."""
        names = [hashlib.sha256(z.numpy().tobytes()).hexdigest() for z in smashed.cpu()]
        drawn = [torch.randn(count, *self.mean.shape, generator=self.draws(name)) for name in names]
        return torch.stack(drawn).to(self.mean.device)

    def images(self, x: Images) -> Images:
        """Images in [0, 1] of standardised ones; NaN stays where one is not finite."""
        found = self.mean + self.scale * x
        return torch.where(found.isfinite(), found, torch.nan).clamp(0, 1)

    def possible(self, x: Images) -> Images:
        """Standardised images, moved to where they are images in [0, 1]."""
        return (self.images(x) - self.mean) / self.scale


def integrate(velocity: Field, x: Images, steps: int) -> Images:
    """From t = 0 to 1 by the midpoint rule: two looks at the velocity a step.

    Of Gaussian images with 1 % of their variance left unknown, 8 steps give samples with 95 % of that variance; 16
    steps of Euler's rule, at the same cost, 56 %.
    """
    times = [step / steps for step in range(steps + 1)]
    for now, then in pairwise(times):
        middle = x + (then - now) / 2 * velocity(x, now)
        x = x + (then - now) * velocity(middle, (now + then) / 2)
    return x
