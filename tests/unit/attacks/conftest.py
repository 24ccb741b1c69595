"""Small problems: smooth images whose pooled pixels leave the client bent, so that no linear map undoes them."""

import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from cem.attacks import Knowledge


def smooth_images(n, seed=0):
    """uint8 [n, 1, 16, 16], all different, made of 4×4 numbers each."""
    latent = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
    return (interpolate(latent, size=(16, 16), mode="bilinear") * 255).round().byte()


def bend(images):
    """[n, 1, 16, 16] in [0, 255] → [n, 2, 4, 4]: the angle 1.5 π p of each pooled pixel p, as cosine and sine."""
    angle = 1.5 * math.pi * avg_pool2d(images.float() / 255, 4)
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def make_knowledge(images, encode=bend, noise_std=0.0, seed=0):
    clean = encode(images)

    def observe(rows, generator):
        z = clean[rows]
        return z + noise_std * torch.randn(z.shape, generator=generator) if noise_std else z

    labels = torch.zeros(len(images), dtype=torch.int64)
    return Knowledge(images, labels, observe, seed, torch.device("cpu"))


@pytest.fixture
def images():
    return smooth_images(300)


@pytest.fixture
def knowledge(images):
    return make_knowledge(images)


@pytest.fixture
def problem():
    """The three functions above, for tests that vary them."""
    return smooth_images, bend, make_knowledge
