"""Where the answer is known: an encoder that sends the image, and one that sends nothing."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cem.attacks import make_attack
from cem.attacks.decoder import DecoderAttack
from cem.attacks.mean_image import MeanImageAttack
from cem.config import Decoder, Flow, Optimization, PriorSearch
from cem.metrics import psnr_db

FLOW = {"net": "unet_C8", "epochs": 8, "batch_size": 64, "lr": 5e-3, "steps": 4}
ATTACKS = [  # and the parts of the mean image's error that it may make
    (Decoder(net="res_normN0C8", epochs=8, batch_size=64, lr=1e-2), 1.5),
    (Flow(**FLOW, samples=32), 1.5),
    (Flow(**FLOW, samples=1), 3),  # a sample of the prior is off by its own spread and by that of the image
    (PriorSearch(**FLOW, samples=32), 1.5),
    (Optimization(steps=20, tv=(0.0, 0.1), selection_images=8), 4),
]
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


class Constant(nn.Module):
    """Sends .3, whatever the image."""

    def forward(self, images):
        return 0.3 + 0 * images.mean((1, 2, 3), keepdim=True).expand(-1, 2, 4, 4)


def test_an_encoder_that_sends_one_value_leaves_the_mean_image(problem):
    smooth_images, _, make_knowledge = problem
    test = smooth_images(400, seed=1).float() / 255
    knowledge = make_knowledge(smooth_images(800), encode=lambda images: torch.full((len(images), 2, 4, 4), 0.3))
    mean_image = MeanImageAttack()
    mean_image.fit(knowledge)
    least = (mean_image.mean - test).square().mean().item()
    z = torch.full((1, 2, 4, 4), 0.3)  # the same z gets the same answer
    for cfg, parts in ATTACKS:
        attack = make_attack(cfg)
        attack.fit(replace(knowledge, encoder=Constant()) if cfg.encoder == "weights" else knowledge)
        error = (attack.reconstruct(z) - test).square().mean().item()
        assert 0.99 * least < error < parts * least, (cfg.id, error / least)
