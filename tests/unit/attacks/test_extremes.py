"""Where the answer is known: an encoder that sends the image, and one that sends nothing."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cem.attacks.decoder import DecoderAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.config import Decoder
from cem.metrics import psnr_db

CIFAR = Path(__file__).parents[4] / "shared/data/cifar10_jpeg.npz"  # beside the repository


@pytest.fixture(scope="module")
def photographs():
    """400 CIFAR-10 images, uint8 [n, 3, 32, 32]."""
    if not CIFAR.exists():
        # The images may not be copied into the project; drawn ones would not show what photographs do.
        pytest.skip(f"needs real images of 32×32: {CIFAR} is absent")
    with np.load(CIFAR) as file:
        jpeg, offsets = file["jpeg"], file["off"]
    rows = np.random.default_rng(0).choice(len(offsets) - 1, 400, replace=False)
    pictures = [Image.open(io.BytesIO(jpeg[offsets[row] : offsets[row + 1]].tobytes())) for row in rows]
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def test_an_encoder_that_sends_the_image_hides_nothing(photographs, problem):
    def identity(images):
        return images.float() / 255

    attack = DecoderAttack(Decoder(net="res_normN0C6", epochs=30, batch_size=12, lr=3e-2))
    attack.fit(problem[2](photographs[:300], encode=identity))
    test = identity(photographs[300:])
    assert psnr_db(attack.reconstruct(test), test).mean() > 35


def test_an_encoder_that_sends_one_value_leaves_the_mean_image(problem):
    smooth_images, _, make_knowledge = problem
    test = smooth_images(400, seed=1).float() / 255
    knowledge = make_knowledge(smooth_images(800), encode=lambda images: torch.full((len(images), 2, 4, 4), 0.3))
    errors = []
    for attack in (MeanImageAttack(), DecoderAttack(Decoder(net="res_normN0C8", epochs=8, batch_size=64, lr=1e-2))):
        attack.fit(knowledge)
        answers = attack.reconstruct(torch.full((len(test), 2, 4, 4), 0.3))
        errors.append((answers - test).square().mean().item())
    assert 0.99 * errors[0] < errors[1] < 1.5 * errors[0]
