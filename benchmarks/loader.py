"""Images per second: the on-device loader against torchvision's DataLoader with 2 workers, same augmentation.

Seeded random images, 32×32×3 uint8; batches of 128; crop with 4 pixels of padding, mirror, bilinear rotation by ± 15°.
The two are timed in turn, and the median of the ratios counts. Exit code 1 when it is below 5.
The on-device loader runs on one thread: half of what the workers have, and steady on a machine that others use too.
Usage: python benchmarks/loader.py [--images N] [--repeats N]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from cem.config import Augment
from cem.data.loader import OnDeviceLoader

BATCH = 128
REQUIRED = 5.0


class PilImages(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's data sets hold them: arrays, each made a PIL image when it is asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def images_per_second(epoch: Callable[[], Iterable[tuple[Any, Any]]], epochs: int) -> float:
    start = time.perf_counter()
    count = sum(len(labels) for _ in range(epochs) for _, labels in epoch())
    return count / (time.perf_counter() - start)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=12_800)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (args.images, 32, 32, 3), dtype=np.uint8)
    labels = rng.integers(0, 10, args.images)

    # Workers stay alive between epochs, and the first epoch of each is not timed: starting up is not what is measured.
    workers = DataLoader(
        PilImages(images, labels),
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=2,
        persistent_workers=True,
    )
    ours = OnDeviceLoader(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels),
        BATCH,
        Augment(crop_padding=4, flip=True, rotation_deg=15),
        torch.Generator().manual_seed(0),
    )

    def on_device() -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        order = ours.order()
        return (ours.batch(order[step * BATCH : (step + 1) * BATCH]) for step in range(ours.steps))

    ratios = []
    for repeat in range(args.repeats + 1):
        theirs, device = images_per_second(lambda: workers, 1), images_per_second(on_device, 4)
        if repeat > 0:
            ratios.append(device / theirs)
            print(f"DataLoader, 2 workers: {theirs:8.0f} images/s   OnDeviceLoader: {device:8.0f} images/s")
    ratio = statistics.median(ratios)
    print(
        f"ratio: {ratio:.1f} (median of {len(ratios)}, {min(ratios):.1f} to {max(ratios):.1f}; required: {REQUIRED:g})"
    )
    if ratio < REQUIRED:
        print(
            f"too slow: expected at least {REQUIRED:g} times the DataLoader's speed, found {ratio:.1f}", file=sys.stderr
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
