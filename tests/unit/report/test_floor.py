"""Theorem 1's floor, and the bound on the entropy of images that it is drawn with."""

import math

import numpy as np
import pytest

from cem.report.floor import _coded, error_floor, image_entropy


def noise(n: int, seed: int, values: int = 256, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, values, (n, channels, 16, 16), dtype=np.uint8)


def test_the_floor_of_a_gaussian_channel_is_its_error() -> None:
    """x ~ N(0, s²I), z = x + N(0, σ²I): h and I are known, and the least error is s²σ²/(s² + σ²)."""
    s, noise_std, d = 0.3, 0.2, 40
    entropy = 0.5 * math.log(2 * math.pi * math.e * s**2)
    nats = d / 2 * math.log1p(s**2 / noise_std**2)
    assert error_floor(entropy, nats, d) == pytest.approx(s**2 * noise_std**2 / (s**2 + noise_std**2))


@pytest.mark.parametrize("channels", [1, 3])
def test_uniform_noise_has_the_entropy_of_the_unit_interval(channels: int) -> None:
    """h = log 256 − log 255, and never less is said."""
    found = image_entropy(noise(1500, 1, channels=channels), noise(500, 2, channels=channels))
    assert math.log(256 / 255) <= found < 0.05


def test_a_bound_is_never_below_the_entropy() -> None:
    """Numbers that take two values, one bit each, whatever images it was fitted to."""
    truth = math.log(2) - math.log(255)
    same = image_entropy(noise(1500, 1, 2), noise(500, 2, 2))
    assert truth <= same < truth + 0.05
    assert image_entropy(noise(1500, 1, 2), noise(500, 2, 256)) > image_entropy(noise(1500, 1), noise(500, 2))


def test_what_the_neighbours_tell_is_not_counted_twice() -> None:
    """Rows of one value each: eight bits a row of 16, not a number. Grey images as colour: nothing more."""
    rows = np.repeat(noise(1500, 1)[..., :1], 16, axis=3)
    held = np.repeat(noise(500, 2)[..., :1], 16, axis=3)
    bits = (image_entropy(rows, held) + math.log(255)) / math.log(2)
    assert 0.5 <= bits < 0.8
    colour = image_entropy(rows.repeat(3, 1), held.repeat(3, 1))
    assert (colour + math.log(255)) / math.log(2) == pytest.approx(bits / 3, abs=0.05)


def test_a_number_is_not_told_by_itself() -> None:
    """Changing the last number of an image changes the code of no other: what a density needs."""
    images = noise(1, 3, channels=3)
    other = images.copy()
    other[0, -1, -1, -1] ^= 255
    for one, two in zip(_coded(images), _coded(other), strict=True):
        assert (one[:-1] == two[:-1]).all()
    assert _coded(images)[0][-1] == _coded(other)[0][-1]
