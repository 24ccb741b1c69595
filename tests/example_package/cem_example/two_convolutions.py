"""A small architecture."""

from torch import nn

from cem.config import parse_bottleneck
from cem_example.settings import TwoConvolutions


def build(cfg: TwoConvolutions, image_shape: tuple[int, int, int], num_classes: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and classifier, uninitialised: `make_split` draws their weights from a run's own generator."""
    channels, side, _ = image_shape
    wide = max(1, round(32 * cfg.width))
    layers: list[list[nn.Module]] = [
        [nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU()],
        [nn.MaxPool2d(2)],
        [nn.Conv2d(wide, wide, 3, padding=1), nn.BatchNorm2d(wide), nn.ReLU(), nn.MaxPool2d(2)],
    ]
    client = [module for layer in layers[: cfg.cut_layer] for module in layer]
    server = [module for layer in layers[cfg.cut_layer :] for module in layer]
    if cfg.bottleneck is not None:
        cut = parse_bottleneck(cfg.bottleneck)
        if cut.stride != 1:
            raise ValueError(f"two_convolutions takes bottlenecks of stride 1; found {cfg.bottleneck}")
        client.append(nn.Conv2d(wide, cut.channels, cut.kernel, padding=cut.kernel // 2))
        server.insert(0, nn.Conv2d(cut.channels, wide, cut.kernel, padding=cut.kernel // 2))
    client.append({"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "none": nn.Identity}[cfg.activation]())
    server += [nn.Flatten(), nn.Linear(wide * (side // 4) ** 2, num_classes)]
    return nn.Sequential(*client), nn.Sequential(*server)
