"""Each loss is the error it is called, and a decoder that minimises it gets that error down."""

import pytest
import torch

from cem.attacks import AttackError
from cem.attacks.decoder import DecoderAttack
from cem.attacks.loss import weighted_loss
from cem.config import Decoder, Loss
from cem.metrics import similarity, ssim


@pytest.fixture
def pair():
    """Reconstruction and target, [3, 2, 16, 12]."""
    return torch.rand(2, 3, 2, 16, 12, generator=torch.Generator().manual_seed(0)).unbind()


def test_ssim_refuses_images_that_its_window_does_not_fit_in():
    with pytest.raises(AttackError, match="sides of 6 pixels at least"):
        weighted_loss(Loss(ssim=1), torch.zeros(1, 1, 5, 8), torch.zeros(1, 1, 5, 8))


def test_gradient_of_ssim_is_that_of_finite_differences(pair):
    image, target = (part[:1, :1, :7, :7].double() for part in pair)
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: similarity(x, target), image)


def test_loss_is_the_weighted_sum(pair):
    image, target = pair
    error = (image - target).abs()
    parts = error.square().mean(), error.mean(), 1 - similarity(image, target).mean()
    torch.testing.assert_close(weighted_loss(Loss(), image, target), parts[0])
    expected = 2 * parts[0] + 3 * parts[1] + 0.5 * parts[2]
    torch.testing.assert_close(weighted_loss(Loss(mse=2, l1=3, ssim=0.5), image, target), expected)
    torch.testing.assert_close(weighted_loss(Loss(mse=0, l1=3), image, target), 3 * parts[1])


def fitted(knowledge, **loss):
    attack = DecoderAttack(Decoder(net="res_normN0C4", lr=3e-2, epochs=10, batch_size=32, loss=Loss(**loss)))
    return attack, attack.fit(knowledge)


def test_squared_error_finds_the_mean_and_absolute_error_the_median(problem):
    """Of pixels that are 1 in three images of ten, where z says nothing."""
    draws = torch.Generator().manual_seed(0)
    images = 255 * (torch.rand(300, 1, 16, 16, generator=draws) < 0.3).byte()
    knowledge = problem[2](images, encode=lambda images: torch.zeros(len(images), 2, 4, 4))
    mse, l1 = (fitted(knowledge, **loss)[1].curve[-1] for loss in ({}, {"mse": 0, "l1": 1}))
    assert mse["train_mse"] == pytest.approx(0.3 * 0.7, abs=0.02)  # of the mean, 0.3
    assert l1["train_loss"] == pytest.approx(0.3, abs=0.02)  # of the median, 0; the mean's would be 0.42
    assert l1["train_mse"] == pytest.approx(0.3, abs=0.02)


def test_ssim_loss_gives_more_ssim_than_squared_error(knowledge, problem):
    smooth_images, bend, _ = problem
    test = smooth_images(50, seed=1)
    found = {}
    for name, loss in {"mse": {}, "ssim": {"mse": 0, "ssim": 1}}.items():
        attack, record = fitted(knowledge, **loss)
        found[name] = ssim(attack.reconstruct(bend(test)), test.float() / 255).mean()
    assert found["ssim"] > found["mse"]
    assert list(record.curve[0]) == ["epoch", "train_mse", "val_mse", "train_loss", "lr", "seconds"]
    assert record.curve[-1]["train_loss"] < 0.5 * record.curve[0]["train_loss"]
    vals = [row["val_mse"] for row in record.curve]
    assert record.choices["epoch"] == vals.index(min(vals)) + 1  # selected by squared error all the same
