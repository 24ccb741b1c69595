"""Networks: the split model, and the attacker's decoders."""

import torch
from torch import nn

from cem.config import ModelSettings
from cem.models.decoder import make_decoder
from cem.models.init import initialise
from cem.models.vgg import seed_dropout

__all__ = ["make_decoder", "make_split", "parameter_count", "seed_dropout", "smashed_shape", "smashed_shape_of"]


def make_split(
    cfg: ModelSettings,
    image_shape: tuple[int, int, int],
    num_classes: int,
    generator: torch.Generator | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Encoder and classifier, on the CPU, initialised from `generator` (absent: one seeded with 0).

    image_shape: channels, height, width of square images. The encoder takes images in [0, 1].
    The implementation of a member of the family is called with settings, image shape and number of classes, and gives
    both modules, uninitialised; see `initialise` for the layers that it may have.
    Raises ValueError when the images do not fit the model.
    """
    channels, height, width = image_shape
    if height != width:
        raise ValueError(f"expected square images, found {height}×{width}: set `side` of the data set")
    cfg.check_side(height)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    with torch.device("meta"):
        encoder, classifier = cfg.load()(cfg, (channels, height, width), num_classes)
    for module, client in ((encoder, True), (classifier, False)):
        module.to_empty(device="cpu")
        initialise(module, generator, client=client)
    return encoder, classifier


def smashed_shape(encoder: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels, height, width of what the encoder makes of an image."""
    device = next(encoder.parameters()).device
    training = encoder.training
    with torch.no_grad():
        channels, height, width = encoder.eval()(torch.zeros(1, *image_shape, device=device)).shape[1:]
    encoder.train(training)
    return channels, height, width


def smashed_shape_of(cfg: ModelSettings, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Channels, height, width of z, from settings alone: nothing is computed."""
    with torch.device("meta"):
        encoder, _ = make_split(cfg, image_shape, num_classes=2)  # z has the same size for any number
    return smashed_shape(encoder, image_shape)


def parameter_count(module: nn.Module) -> int:
    """How many numbers a module can learn."""
    return sum(parameter.numel() for parameter in module.parameters())
