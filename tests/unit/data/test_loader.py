import re

import pytest
import torch

from cem.config import Augment
from cem.data.loader import OnDeviceLoader
from cem.data.sources import DataError

FULL = Augment(crop_padding=4, flip=True, rotation_deg=15)


def loader(n: int = 50, batch_size: int = 16, augment: Augment = FULL, seed: int = 0) -> OnDeviceLoader:
    images = torch.randint(0, 256, (n, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(9))
    return OnDeviceLoader(images, torch.arange(n), batch_size, augment, torch.Generator().manual_seed(seed))


def epoch(batches: OnDeviceLoader) -> list[torch.Tensor]:
    order, size = batches.order(), batches.batch_size
    return [batches.batch(order[step * size : (step + 1) * size]).images for step in range(batches.steps)]


@pytest.mark.parametrize(("n", "size", "steps"), [(50, 16, 3), (48, 16, 3), (47, 16, 2), (16, 16, 1), (10, 16, 1)])
def test_steps_are_the_whole_batches_but_at_least_one(n: int, size: int, steps: int) -> None:
    batches = loader(n, size)
    assert batches.steps == steps
    assert [len(images) for images in epoch(batches)] == [min(n, size)] * steps


def test_an_order_is_a_permutation_and_no_two_are_equal() -> None:
    batches = loader()
    first, second = batches.order(), batches.order()
    assert torch.equal(first.sort().values, torch.arange(50))
    assert not torch.equal(first, second)


def test_images_and_labels_stay_together() -> None:
    batches = loader(augment=Augment())
    rows = torch.tensor([7, 3, 3, 49])
    images, labels = batches.batch(rows)
    assert torch.equal(labels, rows)
    assert torch.equal(images, batches.images[rows] / 255)
    assert images.dtype == torch.float32


def test_batches_are_in_range_and_the_split_is_left_as_it_was() -> None:
    batches = loader()
    before = batches.images.clone()
    images = torch.cat(epoch(batches))
    assert images.min() >= 0
    assert images.max() <= 1 + 1e-6
    assert torch.equal(batches.images, before)


def test_equal_seeds_give_equal_epochs() -> None:
    for one, other in zip(epoch(loader()), epoch(loader()), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(epoch(loader())[0], epoch(loader(seed=1))[0])


def test_a_restored_generator_goes_on_with_the_same_batches() -> None:
    batches = loader()
    order = batches.order()
    batches.batch(order[:16])
    state = batches.generator.get_state()
    rest = [batches.batch(order[16:32]).images, *epoch(batches)]
    resumed = loader(seed=77)
    resumed.generator.set_state(state)
    again = [resumed.batch(order[16:32]).images, *epoch(resumed)]
    assert all(torch.equal(one, other) for one, other in zip(rest, again, strict=True))


def test_plain_goes_over_everything_in_order_and_draws_nothing() -> None:
    batches = loader()
    state = batches.generator.get_state()
    parts = list(batches.plain(20))
    assert [len(part.labels) for part in parts] == [20, 20, 10]
    assert torch.equal(torch.cat([part.images for part in parts]), batches.images / 255)
    assert torch.equal(torch.cat([part.labels for part in parts]), batches.labels)
    assert torch.equal(batches.generator.get_state(), state)


def test_what_does_not_fit_is_refused() -> None:
    images, labels, generator = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4), torch.Generator()
    expected = "images on meta, labels on cpu, generator on cpu"
    with pytest.raises(DataError, match=re.escape(expected) + ".*torch.Generator"):
        OnDeviceLoader(images.to("meta"), labels, 2, FULL, generator)
    with pytest.raises(DataError, match="0 images and 0 labels"):
        OnDeviceLoader(images[:0], labels[:0], 2, FULL, generator)
