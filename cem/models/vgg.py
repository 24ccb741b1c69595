"""VGG-11 with batch normalisation, cut in two."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cem.config import Vgg11, parse_bottleneck

_ACTIVATIONS = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "none": nn.Identity}


@dataclass
class _Builder:
    """Layers in the order of the network, and what comes out of the last one."""

    width: float
    channels: int
    side: int

    def item(self, item: int | str) -> list[nn.Module]:
        """One item of the table: a convolution with batch normalisation and ReLU, or 2×2 max pooling."""
        if isinstance(item, str):
            self.side //= 2
            return [nn.MaxPool2d(2)]
        channels_in, self.channels = self.channels, scaled(item, self.width)
        convolution = nn.Conv2d(channels_in, self.channels, 3, padding=1)
        return [convolution, nn.BatchNorm2d(self.channels), nn.ReLU()]


def scaled(channels: int, width: float) -> int:
    """Channels of a layer under a width multiplier; at least one."""
    return max(1, round(channels * width))


def build_vgg11(cfg: Vgg11, image_shape: tuple[int, int, int], num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Encoder (client) and classifier (server), uninitialised.

    The client holds the first `cut_layer` items, the bottleneck's way down and the activation; the server the
    bottleneck's way up, the other items and the head. Source: docs/theory.md, "The split model"; Simonyan
    & Zisserman 2015.
    """
    items = cfg.items
    builder = _Builder(cfg.width, image_shape[0], image_shape[1])
    encoder = [layer for item in items[: cfg.cut_layer] for layer in builder.item(item)]
    classifier: list[nn.Module] = []
    if cfg.bottleneck is not None:
        cut = parse_bottleneck(cfg.bottleneck)
        kernel, padding, wide = cut.kernel, cut.kernel // 2, builder.channels
        relu: list[nn.Module] = [nn.ReLU()] if cut.relu else []
        encoder += [nn.Conv2d(wide, cut.channels, kernel, cut.stride, padding), *relu]
        back = (
            nn.Conv2d(cut.channels, wide, kernel, padding=padding)
            if cut.stride == 1
            else nn.ConvTranspose2d(cut.channels, wide, kernel, cut.stride, padding, output_padding=cut.stride - 1)
        )
        classifier += [back, *relu]
    encoder.append(_ACTIVATIONS[cfg.activation]())
    classifier += [layer for item in items[cfg.cut_layer :] for layer in builder.item(item)]
    flat, hidden = builder.channels * builder.side**2, scaled(512, cfg.width)
    classifier += [nn.Flatten(), Dropout(0.5), nn.Linear(flat, hidden), nn.ReLU()]
    classifier += [Dropout(0.5), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)]
    return nn.Sequential(*encoder), nn.Sequential(*classifier)


class Dropout(nn.Module):
    """Dropout that draws from its own generator, so that a run's randomness can be saved and resumed.

    `generator` must be set before training (see `seed_dropout`) and live on the device of the input.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        if self.generator is None:
            raise RuntimeError("expected a generator for dropout, found none: call seed_dropout before training")
        kept = torch.rand(x.shape, generator=self.generator, device=x.device) >= self.rate
        return x * kept / (1 - self.rate)


def seed_dropout(module: nn.Module, generator: torch.Generator) -> None:
    """Let every dropout inside `module` draw from `generator`."""
    for child in module.modules():
        if isinstance(child, Dropout):
            child.generator = generator
