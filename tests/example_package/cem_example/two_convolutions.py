"""A small architecture."""

from torch import nn

from cem.models.split import Architecture, ImageShape, scaled
from cem_example.settings import TwoConvolutions


def build(cfg: TwoConvolutions, image_shape: ImageShape, num_classes: int) -> Architecture:
    """The stages and the head, uninitialised: `make_split` cuts them and draws their weights."""
    channels, side, _ = image_shape
    wide = scaled(32, cfg.width)
    stages = [
        [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()],
        [nn.MaxPool2d(2)],
        [nn.Conv2d(wide, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(), nn.MaxPool2d(2)],
    ]
    return Architecture(stages, [nn.Flatten(), nn.Linear(wide * (side // 4) ** 2, num_classes)])
