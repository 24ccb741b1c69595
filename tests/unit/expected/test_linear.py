"""The linear least error, against its closed form and against the attack `linear`."""

import numpy as np
import pytest
import torch

from cem.attacks import Knowledge
from cem.attacks.linear import LinearAttack
from cem.expected import Moments, linear_error

PIXELS, DIM = 16, 10


def population(seed: int = 0):
    """Covariance of x, and A of ẑ = A x + b."""
    draws = torch.Generator().manual_seed(seed)
    root = torch.randn(PIXELS, PIXELS, generator=draws, dtype=torch.float64) * 0.08 / PIXELS**0.5
    return root @ root.T + 1e-4 * torch.eye(PIXELS).double(), torch.randn(DIM, PIXELS, generator=draws).double()


def draw(n: int, seed: int):
    """ẑ [n, DIM] and x [n, PIXELS], in [0, 1] but for one in thousands."""
    covariance, mixing = population()
    draws = torch.Generator().manual_seed(seed)
    x = 0.5 + torch.randn(n, PIXELS, generator=draws, dtype=torch.float64) @ torch.linalg.cholesky(covariance).T
    return x @ mixing.T + 3, x


def truth(noise_std: float) -> float:
    """tr(C − C Aᵀ (A C Aᵀ + σ²I)⁻¹ A C) / d_x."""
    covariance, mixing = population()
    cross = mixing @ covariance
    z = cross @ mixing.T + noise_std**2 * torch.eye(DIM).double()
    return float((covariance.trace() - (cross.T @ torch.linalg.solve(z, cross)).trace()) / PIXELS)


def moments(n: int, seed: int, parts: int = 3) -> Moments:
    z, x = draw(n, seed)
    return Moments.of(zip(z.chunk(parts), x.chunk(parts), strict=True))


@pytest.mark.parametrize("noise_std", [0.0, 0.05, 0.3])
def test_closed_form(noise_std) -> None:
    found = linear_error(moments(20_000, 1), moments(4000, 2), moments(20_000, 3), noise_std)
    assert found.least == pytest.approx(truth(noise_std), rel=0.01)
    assert found.low == pytest.approx(truth(noise_std), rel=0.01)
    assert found.ridge < 0.1


@pytest.mark.parametrize("noise_std", [0.05, 0.3])
def test_it_is_the_error_of_the_linear_attack(noise_std) -> None:
    """Fitted and scored on the same images, the attack under noise that is drawn."""
    (z, x), (z_test, x_test) = draw(20_000, 1), draw(20_000, 3)
    raw = (255 * x).round().clamp(0, 255).byte().view(-1, 1, 4, 4)

    def observe(rows, generator):
        clean = z[rows].float()
        return (clean + noise_std * torch.randn(clean.shape, generator=generator)).view(-1, DIM, 1, 1)

    attack = LinearAttack()
    attack.fit(Knowledge(raw, None, observe, 0, torch.device("cpu")))
    noise = torch.randn(z_test.shape, generator=torch.Generator().manual_seed(4))
    sent = z_test.float() + noise_std * noise
    error = (attack.reconstruct(sent.view(-1, DIM, 1, 1)).flatten(1) - x_test).square().mean()
    found = linear_error(Moments.of([(z, x)]), moments(4000, 2), Moments.of([(z_test, x_test)]), noise_std)
    assert found.least == pytest.approx(float(error), rel=0.01)


def test_moments_are_those_of_the_whole() -> None:
    z, x = draw(101, 1)
    found = Moments.of(zip((z + 1e4).split(7), x.split(7), strict=True))
    np.testing.assert_allclose(found.zz, np.cov(z.T, ddof=0), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.zx, np.cov(z.T, x.T, ddof=0)[:DIM, DIM:], rtol=1e-6, atol=1e-9)
    assert float(found.xx) == pytest.approx(x.numpy().var(0).sum())
    np.testing.assert_allclose(found.z, z.mean(0) + 1e4)


@pytest.mark.parametrize("noise_std", [0.0, 0.1])
@pytest.mark.parametrize("value", [0.0, 0.1, 1234.567])
def test_a_constant_encoder_leaves_the_error_of_the_mean_image(noise_std, value) -> None:
    def constant(n: int, seed: int) -> Moments:
        x = draw(n, seed)[1]
        z = torch.full((n, DIM), value)
        return Moments.of(zip(z.split(300), x.split(300), strict=True))

    x, x_test = draw(1000, 1)[1], draw(1000, 3)[1]
    found = linear_error(constant(1000, 1), constant(500, 2), constant(1000, 3), noise_std)
    assert found.least == pytest.approx(float((x_test - x.mean(0)).square().mean()), rel=1e-9)


def test_few_images_take_a_ridge_and_give_no_lower_side() -> None:
    """Eight images, ten dimensions, no noise: without a ridge the fit is perfect, and worth nothing."""
    found = linear_error(moments(8, 1, 1), moments(400, 2), moments(4000, 3), 0.0)
    assert found.low is None
    assert found.ridge > 0
    assert truth(0.0) < found.least < 1.2 * float(draw(4000, 3)[1].var(0).mean())


def test_the_two_sides_enclose_the_truth() -> None:
    pairs = [linear_error(moments(40, 10 + k, 1), moments(400, 2), moments(4000, 3), 0.1) for k in range(20)]
    assert np.mean([pair.low for pair in pairs]) < truth(0.1) < np.mean([pair.least for pair in pairs])
