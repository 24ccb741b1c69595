"""What z adds to a guess, where that is known: Gaussian x, a linear encoder."""

import pytest
import torch

from cem.attacks.posterior import Explainer, Spectrum, solve

PIXELS = 16


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def spectrum(n=4000):
    root = draws(PIXELS, PIXELS, seed=1)
    images = (draws(n, PIXELS) @ root).float()
    return Spectrum.of(images), images.double().T @ images.double() / n


@pytest.mark.parametrize("time", [0.0, 0.3, 0.9])
def test_what_is_unknown_once_a_noisy_image_is_known(time):
    found, covariance = spectrum()
    known = time**2 / (1 - time) ** 2 * torch.eye(PIXELS, dtype=torch.float64)
    expected = torch.linalg.inv(torch.linalg.inv(covariance) + known)
    columns = found.unknown(torch.eye(PIXELS).view(PIXELS, 1, 4, 4), time).flatten(1).double()
    torch.testing.assert_close(columns, expected, rtol=1e-3, atol=1e-5)


def test_few_images_leave_what_they_do_not_say_to_all_other_directions_alike():
    images = draws(8, PIXELS).float()
    found = Spectrum.of(images)
    assert found.basis.shape == (PIXELS, 4)
    total = found.variances.sum() + (PIXELS - 4) * found.rest
    torch.testing.assert_close(total, images.square().sum() / 8)
    outside = draws(1, PIXELS, seed=2).float()
    outside -= outside @ found.basis @ found.basis.T
    torch.testing.assert_close(found.unknown(outside.view(1, 1, 4, 4), 0.0).flatten(1), found.rest * outside)


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_a_guess_becomes_the_posterior_mean(masked, elsewhere):
    """μ + C Aᵀ (A C Aᵀ + σ²I)⁻¹ (z − A μ), with the rows of A that are seen."""
    (found, covariance), noise_std = spectrum(), 0.5
    matrix = draws(6, PIXELS, seed=3)

    def encode(images):
        return (images.flatten(1) @ matrix.T.float()).view(-1, 6, 1, 1)

    guess, z = draws(5, 1, 4, 4, seed=4).float(), draws(5, 6, 1, 1, seed=5).float()
    if masked:
        z[:, 2:4] = 0
    explain = Explainer(encode, noise_std, masked, iterations=12)
    around = draws(5, 1, 4, 4, seed=6).float() if elsewhere else guess  # a linear encoder's slope is the same there
    answer = explain(around, z, lambda change: found.unknown(change, 0.0), guess if elsewhere else None)
    rows = [0, 1, 4, 5] if masked else list(range(6))
    seen, flat = matrix[rows], guess.flatten(1).double()
    noise = noise_std**2 * torch.eye(len(rows), dtype=torch.float64)
    gain = covariance @ seen.T @ torch.linalg.inv(seen @ covariance @ seen.T + noise)
    expected = flat + (z.flatten(1).double()[:, rows] - flat @ seen.T) @ gain.T
    torch.testing.assert_close(answer.flatten(1).double(), expected, rtol=1e-3, atol=1e-3)


def test_each_of_a_batch_is_solved_by_itself_and_stays_where_it_is_solved():
    matrices = draws(3, 4, 4)
    matrices = matrices @ matrices.mT + torch.eye(4)
    target = torch.stack([draws(4, seed=1), torch.zeros(4, dtype=torch.float64), draws(4, seed=2)]).view(3, 4, 1, 1)

    def times(x):
        return (matrices @ x.view(3, 4, 1)).view(3, 4, 1, 1)

    found = solve(times, target, iterations=30)
    torch.testing.assert_close(times(found), target)
    assert (found[1] == 0).all()
