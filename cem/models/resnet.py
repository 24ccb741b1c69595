"""The wide ResNets of the published system, in stages."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pad, relu

from cem.config import ResNet
from cem.models.split import Architecture, ImageShape, scaled

WIDTHS = (32, 64, 128)


class BasicBlock(nn.Module):
    """Convolution-BN-ReLU-convolution-BN, added to its input, then ReLU; the first convolution has the stride.

    The shortcut has no parameters: positions are left out, and channels that are new are zero. Source: He, Zhang, Ren &
    Sun 2016 (arXiv 1512.03385), section 4.2, "option A".
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride, self.new = stride, after - before
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
        )

    def forward(
        self, x: Float[Tensor, "batch before height width"]
    ) -> Float[Tensor, "batch after new_height new_width"]:
        shortcut = pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new))
        out: Tensor = relu(self.body(x) + shortcut)
        return out


def build_resnet(cfg: ResNet, image_shape: ImageShape, num_classes: int) -> Architecture:
    """Stages: a 5×5 convolution to 16 channels, the blocks, the mean over positions. The head is one linear layer.

    Source: docs/theory.md, "The split model".
    """
    channels = scaled(16, cfg.width)
    stages: list[list[nn.Module]] = [
        [nn.Conv2d(image_shape[0], channels, 5, padding=2, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    ]
    for width in WIDTHS:
        for block in range(cfg.blocks):
            before, channels = channels, scaled(width, cfg.width)
            stages.append([BasicBlock(before, channels, stride=2 if block == 0 else 1)])
    stages.append([nn.AdaptiveAvgPool2d(1)])
    return Architecture(stages, [nn.Flatten(), nn.Linear(channels, num_classes)])
