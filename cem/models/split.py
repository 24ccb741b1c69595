"""The cut: an architecture's stages on both sides of it, a bottleneck between them, and the end of the encoder."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import torch
from torch import nn

from cem import CemError
from cem.config import DefenseSettings, ModelSettings, load, parse_bottleneck
from cem.models.init import allocate
from cem.models.pruning import prune

ImageShape = tuple[int, int, int]  # channels, height, width


class ModelError(CemError, ValueError):
    """A network that cannot be built, or cut, as its settings say."""


@dataclass(frozen=True)
class Architecture:
    """A network in pieces, uninitialised: what the implementation of a model gives.

    stages: each one or more modules, from a map [batch, channels, height, width] to the next; a cut may come after
    each. head: from the last map to logits [batch, classes]; always the server's.
    """

    stages: Sequence[Sequence[nn.Module]]
    head: Sequence[nn.Module]


def build_split(
    cfg: ModelSettings, image_shape: ImageShape, num_classes: int, defenses: Sequence[DefenseSettings] = ()
) -> tuple[nn.Sequential, nn.Sequential]:
    """Encoder and classifier on the meta device: shapes without numbers.

    The client holds the first `cut_layer` stages, the bottleneck's way down, what the defences have in the encoder, and
    the activation; the server the bottleneck's way up, the other stages and the head. Raises ValueError when the images
    do not fit the model.
    """
    _, height, width = image_shape
    if height != width:
        raise ValueError(f"expected square images, found {height}×{width}: set `side` of the data set")
    cfg.check_side(height)
    with torch.device("meta"):
        network: Architecture = cfg.load()(cfg, image_shape, num_classes)
        encoder = [module for stage in network.stages[: cfg.cut_layer] for module in stage]
        classifier = [module for stage in network.stages[cfg.cut_layer :] for module in stage]
        wide, side, _ = output_shape(nn.Sequential(*encoder), image_shape)
        cfg.check_features(side, height)
        channels = wide
        if cfg.bottleneck is not None:
            channels = parse_bottleneck(cfg.bottleneck).channels
            down, up = _bottleneck(cfg.bottleneck, wide)
            encoder, classifier = encoder + down, up + classifier
        own = [defense for defense in defenses if defense.in_encoder]
        encoder += [load(defense.in_encoder)(defense, channels) for defense in own]
        encoder.append(_end(cfg.activation, channels))
        whole, server = nn.Sequential(*encoder), nn.Sequential(*classifier, *network.head)
        if cfg.pruned_part:
            prune(whole, cfg.pruned_part)  # the server's way up, and so all that is its own, stays as wide
        return whole, server


@torch.no_grad()
def output_shape(module: nn.Module, image_shape: ImageShape) -> ImageShape:
    """Channels, height, width of what a module in evaluation mode makes of an image; its mode stays as it is.

    A module on "meta" is looked at by a copy on the CPU: convolutions on "meta" import torch's compiler, for two
    seconds of every job.
    """
    parameter = next(module.parameters(), None)
    device = torch.get_default_device() if parameter is None else parameter.device
    if device.type == "meta":
        module, device = deepcopy(module), torch.device("cpu")
        allocate(module, device)
    training = module.training
    with device:
        channels, height, width = module.eval()(torch.zeros(1, *image_shape)).shape[1:]
    module.train(training)
    return channels, height, width


def scaled(channels: int, width: float) -> int:
    """Channels of a layer under a width multiplier; at least one."""
    return max(1, round(channels * width))


def _bottleneck(text: str, wide: int) -> tuple[list[nn.Module], list[nn.Module]]:
    """Its way down, on the client, and up again, on the server."""
    cut = parse_bottleneck(text)
    kernel, padding = cut.kernel, cut.kernel // 2
    relu: list[nn.Module] = [nn.ReLU()] if cut.relu else []
    down = nn.Conv2d(wide, cut.channels, kernel, cut.stride, padding)
    up = (
        nn.Conv2d(cut.channels, wide, kernel, padding=padding)
        if cut.stride == 1
        else nn.ConvTranspose2d(cut.channels, wide, kernel, cut.stride, padding, output_padding=cut.stride - 1)
    )
    return [down, *relu], [up, *relu]


def _end(activation: str, channels: int) -> nn.Module:
    """The last step of the encoder.

    Batch normalisation has no scale of its own, by which an encoder could outgrow the noise.
    """
    if activation == "batch_norm":
        return nn.BatchNorm2d(channels, affine=False)
    ends: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "relu": nn.ReLU, "none": nn.Identity}
    return ends[activation]()
