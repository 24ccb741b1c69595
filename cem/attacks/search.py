"""The search for an image whose ẑ is what was seen, by Adam, many images at once and each for itself."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cem.types import Images, PerImage, Smashed

# Adam as published. Torch's own rounds differently from the second step on, which changes an image by up to 0.05.
BETA_MEAN, BETA_SQUARE, TINY = 0.9, 0.999, 1e-8
LAST_RATE = 0.01  # part of the learning rate that the cosine ends at
ROUND = 1e-6  # under total variation's root, so that it has a slope where the image is flat


@dataclass(frozen=True)
class Search:
    """Minimises, for each image, ‖m ⊙ (F(x) − z)‖²/s² + tv · TV(x) + range_weight · ‖what of x lies outside [0, 1]‖².

    All are sums over an image's numbers, so the first is −2σ²/s² times the log-likelihood of x under noise of σ, and
    the others are its prior: an image's answer does not depend on those beside it, up to rounding (of which
    a kink of the encoder may make much, in float32). m hides what a defence has hidden: where `masked`, zeros of z.

    Under additive noise the expectation over the defence's randomness, E‖F(x) + ε − z‖², is the first term plus a
    constant, and where the mask of dropout is seen the likelihood of the rest is exact. Of a top-k mask this uses that
    values are hidden, not that they are small.

    encoder: frozen, in evaluation mode; its parameters get no gradients. scale: s, in parts of the spread of z: with
    it the weights, and Adam, mean the same for every encoder.
    """

    encoder: nn.Module
    steps: int
    lr: float
    range_weight: float
    masked: bool
    scale: float = 1.0

    def residual(self, images: Images, smashed: Smashed) -> PerImage:
        """‖m ⊙ (F(x) − z)‖²/s²."""
        difference: Tensor = (self.encoder(images) - smashed) / self.scale
        return (difference * (smashed != 0) if self.masked else difference).square().flatten(1).sum(1)

    def images(self, smashed: Smashed, start: Images, tv: float) -> Iterator[Images]:
        """The image before each step and, last, after all: steps + 1 of them, not yet clamped to [0, 1]."""
        images = start.contiguous(memory_format=torch.channels_last)
        mean, square = torch.zeros_like(images), torch.zeros_like(images)
        for step in range(self.steps):
            yield images
            gradient = self._gradient(images, smashed, tv)
            mean = BETA_MEAN * mean + (1 - BETA_MEAN) * gradient
            square = BETA_SQUARE * square + (1 - BETA_SQUARE) * gradient.square()
            slope = mean / (1 - BETA_MEAN ** (step + 1))
            spread = (square / (1 - BETA_SQUARE ** (step + 1))).sqrt() + TINY
            images = images - self._rate(step) * slope / spread
        yield images

    @torch.enable_grad()
    def _gradient(self, images: Images, smashed: Smashed, tv: float) -> Images:
        x = images.detach().requires_grad_()
        outside = (x - x.clamp(0, 1)).square().sum()
        objective = self.residual(x, smashed).sum() + self.range_weight * outside
        if tv:
            objective = objective + tv * total_variation(x).sum()
        gradient: Tensor = torch.autograd.grad(objective, x)[0]
        return gradient

    def _rate(self, step: int) -> float:
        return self.lr * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * step / self.steps)) / 2)


def total_variation(images: Images) -> PerImage:
    """Sum over pixels of the length of the gradient, over both directions and all channels together.

    Edges of all channels are drawn to one place, where a sum over channels would blur colours. Source: Bresson & Chan
    2008, vectorial total variation.
    """
    down, right = images.diff(dim=2), images.diff(dim=3)
    squares = pad(down, (0, 0, 0, 1)).square() + pad(right, (0, 1, 0, 0)).square()
    return (squares.sum(1) + ROUND).sqrt().flatten(1).sum(1)
