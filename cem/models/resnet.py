"""The wide ResNets of the published system, in stages."""

from torch import nn

from cem.config import ResNet
from cem.models.residual import BasicBlock
from cem.models.split import Architecture, ImageShape, scaled

WIDTHS = (32, 64, 128)


def build_resnet(cfg: ResNet, image_shape: ImageShape, num_classes: int) -> Architecture:
    """Stages: a 5×5 convolution to 16 channels, the blocks, the mean over positions. The head is one linear layer.

    `extra_conv`, a 3×3 convolution with batch normalisation and ReLU, is in the first stage.
    Source: docs/theory.md, "The split model".
    """
    before, channels = image_shape[0], scaled(16, cfg.width)
    first: list[nn.Module] = []
    if cfg.extra_conv:
        extra = scaled(cfg.extra_conv, cfg.width)
        first = [nn.Conv2d(before, extra, 3, padding=1, bias=False), nn.BatchNorm2d(extra), nn.ReLU()]
        before = extra
    first += [nn.Conv2d(before, channels, 5, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    stages = [first]
    for width in WIDTHS:
        for block in range(cfg.blocks):
            before, channels = channels, scaled(width, cfg.width)
            stages.append([BasicBlock(before, channels, stride=2 if block == 0 else 1)])
    stages.append([nn.AdaptiveAvgPool2d(1)])
    return Architecture(stages, [nn.Flatten(), nn.Linear(channels, num_classes)])
