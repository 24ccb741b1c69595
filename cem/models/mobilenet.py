"""MobileNetV2 for small images, in stages."""

from jaxtyping import Float
from torch import Tensor, nn

from cem.config import MobileNetV2
from cem.models.dropout import Dropout
from cem.models.split import Architecture, ImageShape, scaled


class InvertedResidual(nn.Module):
    """1×1 convolution up to `expansion` times the channels, 3×3 for each channel, 1×1 down; added to an equal input.

    Every convolution has batch normalisation, all but the last a ReLU6.
    """

    def __init__(self, before: int, after: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * before
        up = _convolution(before, inner, 1) if expansion > 1 else []
        down = _convolution(inner, after, 1)[:-1]  # no ReLU
        self.adds = stride == 1 and before == after
        self.body = nn.Sequential(*up, *_convolution(inner, inner, 3, stride, groups=inner), *down)

    def forward(
        self, x: Float[Tensor, "batch before height width"]
    ) -> Float[Tensor, "batch after new_height new_width"]:
        out: Tensor = self.body(x)
        return x + out if self.adds else out


def _convolution(before: int, after: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU6()]


def build_mobilenet(cfg: MobileNetV2, image_shape: ImageShape, num_classes: int) -> Architecture:
    """Stages: a convolution, the inverted residuals, a 1×1 convolution, the mean over positions. Head: dropout, linear.

    Source: Sandler, Howard, Zhu, Zhmoginov & Chen 2018 (arXiv 1801.04381), table 2.
    """
    channels = scaled(32, cfg.width)
    stages = [_convolution(image_shape[0], channels, 3)]
    for row in cfg.rows:
        for repeat in range(row.repeats):
            before, channels = channels, scaled(row.channels, cfg.width)
            stages.append([InvertedResidual(before, channels, row.stride if repeat == 0 else 1, row.expansion)])
    wide = scaled(1280, cfg.width)
    stages += [_convolution(channels, wide, 1), [nn.AdaptiveAvgPool2d(1)]]
    return Architecture(stages, [nn.Flatten(), Dropout(0.2), nn.Linear(wide, num_classes)])
