"""VGG with batch normalisation, in stages."""

from torch import nn

from cem.config import Vgg
from cem.models.dropout import Dropout
from cem.models.split import Architecture, ImageShape, scaled


def build_vgg(cfg: Vgg, image_shape: ImageShape, num_classes: int) -> Architecture:
    """A stage is a 3×3 convolution with batch normalisation and ReLU, or 2×2 max pooling; `extra_conv` is in the first.

    Source: docs/theory.md, "The split model"; Simonyan & Zisserman 2015.
    """
    channels, side, _ = image_shape
    stages: list[list[nn.Module]] = []
    extra: list[nn.Module] = []  # the client's, whatever the cut
    if cfg.extra_conv:
        before, channels = channels, scaled(cfg.extra_conv, cfg.width)
        extra = _convolution(before, channels)
    for item in cfg.items:
        if isinstance(item, str):
            stages.append([nn.MaxPool2d(2)])
            side //= 2
        else:
            before, channels = channels, scaled(item, cfg.width)
            stages.append(_convolution(before, channels))
    stages[0] = extra + stages[0]
    hidden = scaled(512, cfg.width)
    head = [nn.Flatten(), Dropout(0.5), nn.Linear(channels * side**2, hidden), nn.ReLU()]
    head += [Dropout(0.5), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)]
    return Architecture(stages, head)


def _convolution(before: int, channels: int) -> list[nn.Module]:
    return [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
