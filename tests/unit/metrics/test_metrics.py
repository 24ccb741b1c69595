import math

import pytest
import torch
from torch.nn.functional import avg_pool2d, conv2d, pad

from cem.metrics import PSNR_CAP_DB, MetricError, ms_ssim, ms_ssim_possible, mse, psnr_db, ssim


def images(seed, n=5, channels=3, side=16):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_mse_and_psnr_are_their_formulas():
    target = torch.full((2, 1, 16, 16), 0.5)
    reconstruction = target + torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1)
    torch.testing.assert_close(mse(reconstruction, target), torch.tensor([0.01, 0.04]))
    torch.testing.assert_close(psnr_db(reconstruction, target), torch.tensor([20.0, 10 * math.log10(25)]))


def test_identical_images():
    x = images(0)
    assert torch.equal(mse(x, x), torch.zeros(5))
    assert torch.equal(psnr_db(x, x), torch.full((5,), PSNR_CAP_DB))
    torch.testing.assert_close(ssim(x, x), torch.ones(5), atol=1e-6, rtol=0)
    large = images(1, 2, 1, 176)
    torch.testing.assert_close(ms_ssim(large, large), torch.ones(2), atol=1e-6, rtol=0)


def test_psnr_is_capped_only_where_images_are_equal_for_all_purposes():
    target = torch.zeros(2, 1, 8, 8)
    reconstruction = target + torch.tensor([1.01e-5, 0.99e-5]).reshape(2, 1, 1, 1)
    below, at = psnr_db(reconstruction, target).tolist()
    assert below < PSNR_CAP_DB == at


def test_ssim_of_two_flat_images_has_only_the_luminance_term():
    a, b, c1 = 0.2, 0.6, 0.01**2
    expected = (2 * a * b + c1) / (a**2 + b**2 + c1)
    found = ssim(torch.full((1, 1, 16, 16), a), torch.full((1, 1, 16, 16), b))
    torch.testing.assert_close(found, torch.tensor([expected]), atol=1e-4, rtol=0)


def test_ssim_is_its_formula_under_an_11_by_11_gaussian():
    x, y = images(0, 3, 2).double(), images(1, 3, 2).double()
    axis = torch.arange(11.0, dtype=torch.float64) - 5
    window = torch.exp(-(axis[:, None] ** 2 + axis**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(2, 1, 11, 11)

    def blur(image):
        return conv2d(pad(image, (5, 5, 5, 5), mode="reflect"), window, groups=2)

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    torch.testing.assert_close(ssim(x, y), expected.flatten(1).mean(1), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("n", "channels", "side"), [(700, 3, 32), (3, 3, 400)])
def test_ssim_of_many_images_is_that_of_each(n, channels, side):
    """More values than are compared at once, and fewer images than one."""
    x, y = images(0, n, channels, side), images(1, n, channels, side)
    for i in (0, n // 2, n - 1):
        torch.testing.assert_close(ssim(x, y)[i : i + 1], ssim(x[i : i + 1], y[i : i + 1]), atol=1e-6, rtol=0)


def test_ssim_has_gradients():
    x, y = images(0, 2, 1, 8).double().requires_grad_(), images(1, 2, 1, 8).double()
    assert torch.autograd.gradcheck(lambda x: ssim(x * 0.98 + 0.01, y), x)


@pytest.mark.parametrize("shape", [(1, 1, 5, 32), (1, 3, 32, 5), (2, 1, 1, 1)])
def test_ssim_refuses_sides_that_its_window_reflects_more_than_once(shape):
    with pytest.raises(MetricError, match=r"sides of at least 6 pixels, found"):
        ssim(torch.zeros(shape), torch.zeros(shape))


def test_ssim_of_sides_that_are_not_equal():
    x, y = images(0), images(1)
    torch.testing.assert_close(ssim(x[..., :9], y[..., :9]), ssim(x[..., :9].mT, y[..., :9].mT))


def test_ms_ssim_needs_a_side_that_halves_four_times():
    assert [side for side in (32, 160, 161, 175, 176, 224) if ms_ssim_possible(side)] == [176, 224]
    with pytest.raises(MetricError, match=r"sides of at least 176 pixels.*\(175, 200\)"):
        ms_ssim(torch.zeros(1, 1, 175, 200), torch.zeros(1, 1, 175, 200))


def test_ms_ssim_of_opposites_is_zero_and_not_a_power_of_a_negative():
    x = (images(0, 2, 1, 176) > 0.5).float()
    assert torch.equal(ms_ssim(x, 1 - x), torch.zeros(2))


def test_ms_ssim_forgives_what_only_the_finest_scale_shows():
    x = avg_pool2d(images(0, 2, 1, 352), 2)
    noise = 0.1 * (images(1, 2, 1, 176) - 0.5)
    fine, coarse = noise, avg_pool2d(noise, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    coarse = coarse * (fine.std() / coarse.std())
    assert (ms_ssim((x + fine).clamp(0, 1), x) > ms_ssim((x + coarse).clamp(0, 1), x)).all()


def test_what_cannot_be_compared_is_named():
    with pytest.raises(MetricError, match=r"one shape.*\(5, 3, 16, 16\) and \(1, 3, 16, 16\)"):
        mse(images(0), images(0, n=1))
    with pytest.raises(MetricError, match=r"reconstructions in \[0, 1\]"):
        mse(images(0) + 1, images(0))
    with pytest.raises(MetricError, match=r"images in \[0, 1\]"):
        mse(images(0), images(0) + 1)


def test_rounding_is_tolerated():
    ones = torch.ones(1, 1, 16, 16)
    assert mse(ones * (1 + 5e-7), ones) < 1e-12
