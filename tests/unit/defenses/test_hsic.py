"""HSIC, and BiDO's penalty from it."""

import math

import numpy as np
import pytest
import torch

from cem.config import Hsic
from cem.defenses import Place, make_defense
from cem.defenses.hsic import gaussian_kernel, hsic

IMAGES = torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
CLEAN = torch.rand(12, 2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
LABELS = torch.arange(12) % 3


def reference(x: np.ndarray, y: np.ndarray, bandwidth: float) -> float:
    """By its definition, with H as a matrix."""

    def kernel(points: np.ndarray) -> np.ndarray:
        width = bandwidth * math.sqrt(points.shape[1])
        return np.array([[math.exp(-((a - b) ** 2).sum() / (2 * width**2)) for b in points] for a in points])

    n = len(x)
    centre = np.eye(n) - 1 / n
    return float(np.trace(kernel(x) @ centre @ kernel(y) @ centre)) / (n - 1) ** 2


@pytest.mark.parametrize("bandwidth", [0.3, 5.0])
def test_the_penalty_is_that_of_the_definition(bandwidth) -> None:
    defense = make_defense(0.0, [Hsic(weight_x=0.7, weight_y=0.2, bandwidth=bandwidth)])
    defense.begin_training(Place((1, 4, 4), (2, 3, 3), 3), torch.Generator(), CLEAN)
    x, z, y = IMAGES.flatten(1).numpy(), CLEAN.flatten(1).numpy(), np.eye(3)[LABELS.numpy()]
    expected = 0.7 * reference(x, z, bandwidth) - 0.2 * reference(z, y, bandwidth)
    assert float(defense.penalty(IMAGES, CLEAN, LABELS)) == pytest.approx(expected, rel=1e-9)


def test_two_pairs_of_points_in_closed_form() -> None:
    """Points a, a, b, b: the centred kernel is ±(1 − k)/2 everywhere, k the kernel of a and b: HSIC is (1 − k)²·4/9."""
    points = torch.tensor([[0.0], [0.0], [2.0], [2.0]], dtype=torch.float64)
    kernel = gaussian_kernel(points, 1.5)
    k = math.exp(-4 / (2 * 1.5**2))
    assert float(hsic(kernel, kernel)) == pytest.approx((1 - k) ** 2 * 4 / 9)
    other = gaussian_kernel(points[[0, 2, 1, 3]], 1.5)  # says nothing of the first
    assert float(hsic(kernel, other)) == pytest.approx(0.0, abs=1e-12)


def test_descending_it_forgets_the_image_and_keeps_the_label() -> None:
    defense = make_defense(0.0, [Hsic(weight_x=1.0, weight_y=1.0, bandwidth=0.5)])
    defense.begin_training(Place((1, 4, 4), (2, 3, 3), 3), torch.Generator(), CLEAN)
    clean = CLEAN.clone().requires_grad_()
    optimizer = torch.optim.Adam([clean], 0.02)
    labels = torch.eye(3, dtype=torch.float64)[LABELS]

    def dependence() -> tuple[float, float]:
        x, z, y = (gaussian_kernel(points.detach().flatten(1), 0.5) for points in (IMAGES, clean, labels))
        return float(hsic(x, z)), float(hsic(z, y))

    before = dependence()
    for _ in range(50):
        optimizer.zero_grad()
        defense.penalty(IMAGES, clean, LABELS).backward()
        optimizer.step()
    after = dependence()
    assert after[1] > 2 * before[1]
    assert after[0] / after[1] < before[0] / before[1]


def test_one_image_depends_on_nothing() -> None:
    kernel = gaussian_kernel(CLEAN[:1].flatten(1), 5.0)
    assert float(hsic(kernel, kernel)) == 0.0


def test_two_weights_of_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing is defended"):
        Hsic(weight_x=0, weight_y=0)
