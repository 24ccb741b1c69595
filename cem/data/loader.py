"""Batches from images that stay on the device: no workers, no copies, one generator."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from cem.config import Augment
from cem.data.augment import augmented
from cem.data.sources import DataError
from cem.types import Images, Labels, RawImages


class Batch(NamedTuple):
    """Images in [0, 1] and their labels."""

    images: Images
    labels: Labels


class OnDeviceLoader:
    """Shuffled, augmented batches of one split.

    images: the whole split as uint8, on the device that trains. labels: on the same device. generator: on the same
    device; all randomness comes from it, so its state is all that has to be saved to go on with the same batches.

    Raises DataError when there are no images, when images and labels differ in number, and when they or the generator
    are on different devices.
    """

    def __init__(
        self, images: RawImages, labels: Labels, batch_size: int, augment: Augment, generator: torch.Generator
    ) -> None:
        devices = {"images": images.device, "labels": labels.device, "generator": generator.device}
        if len({(device.type, device.index or 0) for device in devices.values()}) > 1:
            found = ", ".join(f"{name} on {device}" for name, device in devices.items())
            raise DataError(
                f"expected images, labels and generator on one device, found {found}. "
                "Make the generator with torch.Generator(images.device) and move the tensors there."
            )
        if len(images) != len(labels) or len(images) == 0:
            raise DataError(f"expected as many labels as images, found {len(images)} images and {len(labels)} labels.")
        self.images, self.labels = images, labels
        self.batch_size = min(batch_size, len(images))
        self.augment, self.generator = augment, generator

    @property
    def steps(self) -> int:
        """Batches in an epoch. An incomplete last one is left out; fewer images than a batch make one batch."""
        return len(self.images) // self.batch_size

    def order(self) -> Int[Tensor, " n"]:
        """Draw the order of an epoch. Step i takes order[i * batch_size : (i + 1) * batch_size]."""
        return torch.randperm(len(self.images), generator=self.generator, device=self.images.device)

    def batch(self, rows: Int[Tensor, " batch"]) -> Batch:
        """The given rows, augmented: each image by its own draw."""
        images = self.images.index_select(0, rows)
        return Batch(augmented(images, self.augment, self.generator), self.labels.index_select(0, rows))

    def plain(self, batch_size: int) -> Iterator[Batch]:
        """All images in their order, unaugmented; the last batch may be smaller."""
        for start in range(0, len(self.images), batch_size):
            part = slice(start, start + batch_size)
            yield Batch(self.images[part] / 255, self.labels[part])
