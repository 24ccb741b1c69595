import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from cem.attacks import AttackError
from cem.attacks.linear import RIDGES, LinearAttack, Moments, ridge_errors, solve


def sample(n, seed=0, dim=6, pixels=9, noise=0.1):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dim, pixels))
    z = 3 + rng.normal(size=(n, dim)) * np.logspace(0, -2, dim)
    return torch.from_numpy(z), torch.from_numpy(z @ mixing + noise * rng.normal(size=(n, pixels)))


def moments(z, x):
    total = Moments.zeros(z.shape[1], x.shape[1], torch.device("cpu"))
    for part in torch.arange(len(z)).split(7):
        total.add(z[part], x[part])
    return total


def chosen_ridge(fitted_on, selected_on):
    return RIDGES[int(ridge_errors(fitted_on, selected_on).argmin())]


def test_without_ridge_it_is_least_squares():
    z, x = sample(200)
    design = np.column_stack([np.ones(200), z.numpy()])
    expected = np.linalg.lstsq(design, x.numpy())[0]
    weight, intercept = solve(moments(z, x), 1e-14)
    np.testing.assert_allclose(weight.numpy(), expected[1:], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(intercept.numpy(), expected[0], rtol=1e-6, atol=1e-7)


def test_ridge_is_in_parts_of_the_mean_variance():
    z, x = sample(50)
    centred, target = (z - z.mean(0)).numpy(), (x - x.mean(0)).numpy()
    penalty = 0.3 * z.var(0, correction=0).mean().item()
    expected = np.linalg.solve(centred.T @ centred / 50 + penalty * np.eye(6), centred.T @ target / 50)
    np.testing.assert_allclose(solve(moments(z, x), 0.3)[0].numpy(), expected, rtol=1e-9)


def test_moments_of_two_parts_add_up():
    z, x = sample(90)
    whole, parts = moments(z, x), moments(z[:40], x[:40]) + moments(z[40:], x[40:])
    for name in ("z", "x", "zz", "zx"):
        torch.testing.assert_close(getattr(whole, name), getattr(parts, name))
    assert parts.count == 90


@pytest.mark.parametrize(("n", "noise"), [(8, 1.0), (30, 3.0), (300, 0.01)])
def test_chosen_ridge_has_the_least_error_on_the_held_out_images(n, noise):
    (z, x), (z_held, x_held) = sample(n, noise=noise), sample(50, seed=1, noise=noise)
    errors = {}
    for ridge in RIDGES:
        weight, intercept = solve(moments(z, x), ridge)
        errors[ridge] = (x_held - intercept - z_held @ weight).square().sum(1).mean().item()
    found = ridge_errors(moments(z, x), moments(z_held, x_held))
    np.testing.assert_allclose(found.numpy(), list(errors.values()), rtol=1e-9)
    chosen = chosen_ridge(moments(z, x), moments(z_held, x_held))
    assert errors[chosen] == pytest.approx(min(errors.values()), rel=1e-6)


def test_noisy_data_get_a_larger_ridge():
    clean, noisy = (chosen_ridge(moments(*sample(8, noise=s)), moments(*sample(50, 1, noise=s))) for s in (1e-6, 5.0))
    assert clean < noisy


def test_linear_images_are_recovered_exactly(images, problem):
    _, _, make_knowledge = problem
    mixing = torch.randn(16, 48, generator=torch.Generator().manual_seed(0))

    def encode(raw):  # 16 numbers an image are all there is to know: see smooth_images
        latent = raw[:, 0, ::4, ::4].float().flatten(1) / 255
        corners = raw[:, 0, 3::4, 3::4].float().flatten(1) / 255
        return torch.cat([latent @ mixing, corners @ mixing], 1).reshape(len(raw), 6, 4, 4)

    attack = LinearAttack()
    fitted = attack.fit(make_knowledge(images, encode))
    error = (attack.reconstruct(encode(images)) - images.float() / 255).square().mean()
    assert error < 1e-5
    assert fitted.choices["ridge"] < 1e-3
    assert fitted.parameters == (96 + 1) * 256


@pytest.mark.parametrize("dim", [3, 20])
def test_in_the_span_of_the_images_it_is_the_same_solution(images, problem, monkeypatch, dim):
    """Fewer images than dimensions, as where z is too large for its covariance; and blocks of a few pixels."""
    _, _, make_knowledge = problem
    mixing = torch.randn(256, dim * 16, generator=torch.Generator().manual_seed(0))

    def encode(raw):
        return (raw[:, 0].float().flatten(1) / 255 @ mixing).reshape(len(raw), dim, 4, 4)

    primal, chosen, dual, fewer = (LinearAttack() for _ in range(4))
    knowledge = make_knowledge(images[:40], encode)
    with monkeypatch.context() as never:
        never.setattr("cem.attacks.linear.MOST_DIMENSIONS", 0)
        expected = primal.fit(knowledge)
    assert primal.basis is None
    chosen.fit(knowledge)
    assert (chosen.basis is None) == (dim == 3)  # few images are reason enough
    monkeypatch.setattr("cem.attacks.linear.MOST_BYTES", 0)
    monkeypatch.setattr("cem.attacks.linear.BLOCK", 40 * 50)
    fitted = dual.fit(knowledge)
    assert fitted.choices == expected.choices
    assert dual.basis.shape == (16 * dim, min(40, 16 * dim))
    unseen = encode(images[40:60])
    torch.testing.assert_close(dual.reconstruct(unseen), primal.reconstruct(unseen), rtol=0, atol=2e-5)
    monkeypatch.setattr("cem.attacks.linear.MOST_DIMENSIONS", 12)
    assert fewer.fit(knowledge).choices["dimensions"] == 12
    error = (fewer.reconstruct(encode(images[:40])) - images[:40].float() / 255).square().mean()
    assert error < (images[:40].float() / 255).var(0).mean()


def test_large_images_need_little_memory(problem):
    """z of 8×56×56 and images of 3×224×224: moments of all dimensions would take 35 GB."""
    latent = torch.rand(39, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    images = (interpolate(latent, size=(224, 224), mode="bilinear") * 255).round().byte()
    mixing = torch.randn(8, 3, generator=torch.Generator().manual_seed(1))

    def encode(raw):
        return torch.einsum("oc,nchw->nohw", mixing, avg_pool2d(raw.float() / 255, 4))

    attack = LinearAttack()
    attack.fit(problem[2](images[:36], encode))
    assert attack.weight.shape == (36, 3 * 224 * 224)
    torch.testing.assert_close(attack.reconstruct(encode(images[36:])), images[36:] / 255, rtol=0, atol=0.02)


def test_reconstructions_stay_in_the_unit_interval(knowledge):
    attack = LinearAttack()
    attack.fit(knowledge)
    found = attack.reconstruct(100 * torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert found.min() == 0
    assert found.max() == 1


def test_a_single_image_to_fit_on_is_too_few():
    z, x = sample(30)
    with pytest.raises(AttackError, match=r"two of the attacker's images or more.*found 1. Raise data_size"):
        chosen_ridge(moments(z[:1], x[:1]), moments(z, x))


def test_a_constant_z_is_answered_with_the_mean_image(images, problem):
    attack = LinearAttack()
    attack.fit(problem[2](images, lambda raw: torch.full((len(raw), 1, 4, 4), 0.3)))
    mean = (images.float() / 255).mean(0)
    torch.testing.assert_close(attack.reconstruct(torch.full((2, 1, 4, 4), 0.3)), mean.expand(2, -1, -1, -1))
