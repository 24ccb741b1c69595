import math

import pytest
import torch
from torch import Tensor

from cem.config import Augment
from cem.data.augment import augmented, crop_flip, crop_flip_rotate

FULL = Augment(crop_padding=4, flip=True, rotation_deg=15)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (16, 3, 12, 12), dtype=torch.uint8, generator=seeded(1))


def still(images: Tensor) -> tuple[Tensor, Tensor]:
    """No shift and no flip."""
    return torch.zeros(len(images), 2, dtype=torch.int64), torch.zeros(len(images), dtype=torch.bool)


def test_without_changes_it_is_division_by_255(images: Tensor) -> None:
    generator = seeded()
    state = generator.get_state()
    assert torch.equal(augmented(images, Augment(), generator), images.to(torch.float32) / 255)
    assert torch.equal(generator.get_state(), state)


def test_a_crop_is_a_shift_that_brings_in_zeros(images: Tensor) -> None:
    shift, flip = still(images)
    shift[0], shift[1] = torch.tensor([2, -3]), torch.tensor([-4, 4])
    cropped = crop_flip(images, shift, flip, padding=4)
    assert torch.equal(cropped[0, :, :-2, 3:], images[0, :, 2:, :-3])
    assert not cropped[0, :, -2:].any()
    assert not cropped[0, :, :, :3].any()
    assert torch.equal(cropped[1, :, 4:, :-4], images[1, :, :-4, 4:])
    assert torch.equal(cropped[2:], images[2:])


def test_a_flip_mirrors_left_and_right_and_only_where_asked(images: Tensor) -> None:
    shift, flip = still(images)
    flip[::2] = True
    flipped = crop_flip(images, shift, flip, padding=0)
    assert torch.equal(flipped[::2], images[::2].flip(-1))
    assert torch.equal(flipped[1::2], images[1::2])


def test_the_crop_comes_before_the_flip(images: Tensor) -> None:
    shift, flip = still(images)
    shift[:, 1] = 2
    assert torch.equal(crop_flip(images, shift, ~flip, 2), crop_flip(images, shift, flip, 2).flip(-1))


@pytest.mark.parametrize("shape", [(16, 3, 12, 12), (16, 1, 9, 14)])
def test_rotation_by_zero_is_the_exact_crop_and_flip(shape: tuple[int, ...]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=seeded())
    shift = torch.randint(-3, 4, (16, 2), generator=seeded())
    flip = torch.arange(16) % 2 == 0
    turned = crop_flip_rotate(images / 255, shift, flip, torch.zeros(16))
    torch.testing.assert_close(turned, crop_flip(images, shift, flip, 3) / 255, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_only_move_pixels(images: Tensor, quarters: int) -> None:
    shift, flip = still(images)
    turned = crop_flip_rotate(images / 255, shift, ~flip, torch.full((16,), quarters * math.pi / 2))
    clockwise = torch.rot90((images / 255).flip(-1), -quarters, (2, 3))  # the flip comes before the turn
    torch.testing.assert_close(turned, clockwise, rtol=0, atol=1e-5)


def test_a_rotation_turns_pixels_not_proportions() -> None:
    """In a wide image a turn by 90° keeps distances: dots 2 above and 3 right of the centre go 2 right, 3 below."""
    images = torch.zeros(1, 1, 9, 15)
    images[0, 0, 2, 7] = images[0, 0, 4, 10] = 1
    turned = crop_flip_rotate(images, *still(images), torch.tensor([math.pi / 2]))
    expected = torch.zeros(1, 1, 9, 15)
    expected[0, 0, 4, 9] = expected[0, 0, 7, 7] = 1
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-5)


def test_what_turns_in_from_outside_is_zero() -> None:
    images = torch.ones(1, 1, 12, 12)
    turned = crop_flip_rotate(images, *still(images), torch.tensor([math.pi / 4]))
    assert turned[0, 0, 0, 0] == 0
    assert turned[0, 0, 6, 6] == pytest.approx(1)
    assert turned.min() >= 0
    assert turned.max() <= 1 + 1e-6


@pytest.mark.parametrize(
    "augment", [Augment(crop_padding=4), Augment(flip=True), Augment(rotation_deg=15), FULL], ids=repr
)
def test_equal_images_in_one_batch_are_changed_each_on_its_own(images: Tensor, augment: Augment) -> None:
    batch = augmented(images[:1].expand(64, -1, -1, -1).contiguous(), augment, seeded())
    different = len(torch.unique(batch.flatten(1), dim=0))
    assert different == 2 if augment == Augment(flip=True) else different > 30


def test_draws_cover_their_range_evenly() -> None:
    """A dot in the middle tells the shift; counts of a uniform draw stay within 5 standard deviations."""
    images = torch.zeros(5000, 1, 9, 9, dtype=torch.uint8)
    images[:, :, 4, 4] = 255
    place = augmented(images, Augment(crop_padding=2), seeded()).flatten(1).argmax(1)
    shifts = torch.stack([place // 9 - 4, place % 9 - 4], 1)
    for axis in range(2):
        counts = torch.bincount(shifts[:, axis] + 2, minlength=5)
        assert len(counts) == 5
        assert (abs(counts - 1000) < 5 * math.sqrt(5000 * 0.2 * 0.8)).all()
    assert abs(torch.corrcoef(shifts.T.float())[0, 1]) < 5 / math.sqrt(5000)  # down and right are drawn apart


def test_angles_stay_within_the_range_on_both_sides() -> None:
    """A dot far from the centre tells the angle."""
    images = torch.zeros(2000, 1, 41, 41, dtype=torch.uint8)
    images[:, :, 18:23, 38:] = 255
    turned = augmented(images, Augment(rotation_deg=30), seeded())
    down = torch.arange(41.0) - 20
    mass = turned.sum((1, 2, 3))
    y = (turned * down[:, None]).sum((1, 2, 3)) / mass
    x = (turned * down).sum((1, 2, 3)) / mass
    degrees = torch.rad2deg(torch.atan2(y, x))
    assert degrees.min() == pytest.approx(-30, abs=1)
    assert degrees.max() == pytest.approx(30, abs=1)
    assert degrees.mean().abs() < 5 * 30 / math.sqrt(3 * 2000)


def test_the_generator_decides_and_global_seeds_do_not(images: Tensor) -> None:
    torch.manual_seed(1)
    first = augmented(images, FULL, seeded())
    torch.manual_seed(2)
    assert torch.equal(augmented(images, FULL, seeded()), first)
    assert not torch.equal(augmented(images, FULL, seeded(1)), first)
