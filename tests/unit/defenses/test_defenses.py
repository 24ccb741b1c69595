"""Defences: what leaves the client, and the distance correlation."""

import pytest
import torch

from cem.config import Dropout, NoPeek, TopK
from cem.defenses import make_defense
from cem.defenses.nopeek import distance_correlation


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CLEAN = torch.rand(64, 8, 4, 4, generator=generator(1)) + 0.1
LABELS = torch.arange(64) % 5


def test_the_reference_for_the_distance_correlation_leaves_one_thread() -> None:
    assert torch.get_num_threads() == 1  # else each worker of the tests has as many as there are cores: hours


def test_without_noise_and_defences_the_clean_leaves() -> None:
    assert torch.equal(make_defense(0.0, []).corrupt(CLEAN, generator()), CLEAN)


def test_noise_has_the_stated_deviation_and_its_own_generator() -> None:
    defense = make_defense(0.3, [])
    noise = defense.corrupt(CLEAN, generator(2)) - CLEAN
    assert float(noise.std()) == pytest.approx(0.3, rel=0.03)
    assert torch.equal(defense.corrupt(CLEAN, generator(2)) - CLEAN, noise)


def test_dropout_zeroes_the_stated_share_after_the_noise_without_rescaling() -> None:
    z = make_defense(0.1, [Dropout(rate=0.25)]).corrupt(CLEAN, generator(3))
    noisy = make_defense(0.1, []).corrupt(CLEAN, generator(3))
    assert float((z == 0).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert torch.equal(z[z != 0], noisy[z != 0])


def test_topk_zeroes_the_smallest_of_each_image() -> None:
    z = make_defense(0.0, [TopK(fraction=0.5)]).corrupt(CLEAN, generator()).flatten(1)
    flat = CLEAN.flatten(1)
    assert ((z == 0).sum(1) == 64).all()
    assert (flat.masked_fill(z != 0, 0).amax(1) <= flat.masked_fill(z == 0, 9).amin(1)).all()


def test_topk_of_a_batch_takes_from_weak_images_first() -> None:
    scaled = CLEAN * torch.tensor([0.01, 1.0]).repeat(32).view(-1, 1, 1, 1)
    z = make_defense(0.0, [TopK(fraction=0.5, scope="batch")]).corrupt(scaled, generator())
    assert int((z == 0).sum()) == z.numel() // 2
    assert (z[::2] == 0).all(), "every value of a weak image is below every one of a strong"
    assert torch.equal(z[1::2], scaled[1::2])
    assert TopK().label == "topk0.2"
    assert TopK(scope="batch").label == "topk_batch0.2"


def plain_distance_correlation(x: torch.Tensor, y: torch.Tensor) -> float:
    def centred(p: torch.Tensor) -> torch.Tensor:
        d = torch.cdist(p, p)
        return d - d.mean(0) - d.mean(1)[:, None] + d.mean()

    a, b = centred(x.double()), centred(y.double())
    return float(((a * b).mean() / ((a * a).mean() * (b * b).mean()).sqrt()).sqrt())


def test_distance_correlation_is_the_textbooks() -> None:
    images = torch.rand(40, 1, 5, 5, generator=generator(4))
    other = torch.rand(40, 2, 3, 3, generator=generator(5))
    expected = plain_distance_correlation(images.flatten(1), other.flatten(1))
    assert float(distance_correlation(images, other)) == pytest.approx(expected, abs=1e-3)
    assert float(distance_correlation(images, 3 * images + 1)) == pytest.approx(1.0, abs=1e-3)


def test_distance_correlation_is_that_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    # numba would compile dcor as it is imported, up to a minute in a new environment, and several processes that do so
    # at the same time, into one cache, crash (LLVM aborts). Here and not above: every process collects this file.
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    import numba

    monkeypatch.setattr(numba, "guvectorize", lambda *_, **__: lambda function: function)  # which has no such switch
    import dcor

    images = torch.rand(60, 1, 5, 5, generator=generator(7), dtype=torch.float64)
    noise = torch.rand(60, 3, 2, 2, generator=generator(8), dtype=torch.float64)
    for clean in (noise, images[:, :, :2, :2] ** 2 + 0.1 * noise, 3 * images + 1):
        expected = dcor.distance_correlation(images.flatten(1).numpy(), clean.flatten(1).numpy())
        assert float(distance_correlation(images, clean)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("scale", [1.0, 0.1, 1e-3, 1e-6, 1e6])
def test_distance_correlation_has_no_scale(scale: float) -> None:
    """After a sigmoid ẑ may vary by little; an encoder must not leave the penalty by shrinking."""
    images = torch.rand(60, 1, 5, 5, generator=generator(7))
    clean = images[:, :, :3, :3] ** 2 + 0.1 * torch.rand(60, 1, 3, 3, generator=generator(8))
    expected = plain_distance_correlation(images.flatten(1), clean.flatten(1))
    assert float(distance_correlation(images, scale * clean)) == pytest.approx(expected, abs=1e-5)


def test_a_constant_has_no_distance_correlation_and_finite_gradients() -> None:
    clean = torch.full((8, 1, 2, 2), 0.5, requires_grad=True)
    found = distance_correlation(torch.rand(8, 1, 4, 4, generator=generator(9)), clean)
    found.backward()
    assert float(found.detach()) < 1e-4
    assert torch.isfinite(clean.grad).all()


@pytest.mark.parametrize(("fraction", "numbers", "zeros"), [(0.29, 100, 29), (0.57, 100, 57), (0.8, 512, 410)])
def test_topk_zeroes_the_nearest_number(fraction: float, numbers: int, zeros: int) -> None:
    z = make_defense(0.0, [TopK(fraction=fraction)]).corrupt(torch.rand(3, numbers, 1, 1) + 1, generator())
    assert (z == 0).sum(1).flatten().tolist() == [zeros] * 3


@pytest.mark.parametrize(("fraction", "numbers"), [(0.001, 400), (0.1, 3), (0.9, 2)])
def test_topk_that_would_zero_none_or_all_is_refused(fraction: float, numbers: int) -> None:
    with pytest.raises(ValueError, match=rf"of the {numbers} numbers of z sets .* to zero; expected 1 to"):
        TopK(fraction=fraction).check_size(numbers, 1)
    with pytest.raises(ValueError, match=rf"of the {numbers} numbers of z of 1 images sets"):
        TopK(fraction=fraction, scope="batch").check_size(numbers, 1)
    TopK(fraction=fraction, scope="batch").check_size(numbers, 1 << 20)


def test_nopeek_is_a_penalty_with_a_gradient_and_nothing_else_is() -> None:
    clean = CLEAN.clone().requires_grad_()
    images = torch.rand(64, 1, 8, 8, generator=generator(6))
    make_defense(0.1, [NoPeek(weight=0.5)]).penalty(images, clean, LABELS).backward()
    assert torch.isfinite(clean.grad).all()
    assert float(clean.grad.abs().sum()) > 0
    assert float(make_defense(0.1, [Dropout()]).penalty(images, CLEAN, LABELS)) == 0.0
