"""Networks: the split model, and the attacker's decoders."""

from collections.abc import Sequence

import torch
from torch import nn

from cem.config import DefenseSettings, ModelSettings
from cem.models.decoder import make_decoder
from cem.models.dropout import seed_dropout
from cem.models.init import allocate, initialise
from cem.models.split import ImageShape, build_split, output_shape

__all__ = ["make_decoder", "make_split", "parameter_count", "seed_dropout", "smashed_shape", "smashed_shape_of"]


def make_split(
    cfg: ModelSettings,
    image_shape: ImageShape,
    num_classes: int,
    generator: torch.Generator | None = None,
    defenses: Sequence[DefenseSettings] = (),
) -> tuple[nn.Module, nn.Module]:
    """Encoder and classifier, on the CPU, initialised from `generator` (absent: one seeded with 0).

    image_shape: channels, height, width of square images. The encoder takes images in [0, 1]. defenses: of the run;
    some have a layer in the encoder.
    The implementation of a member of the family is called with settings, image shape and number of classes, and gives
    an `Architecture`; see `initialise` for the layers that it may have.
    Raises ValueError when the images do not fit the model.
    """
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    encoder, classifier = build_split(cfg, image_shape, num_classes, defenses)
    for module, client in ((encoder, True), (classifier, False)):
        allocate(module, "cpu")
        initialise(module, generator, client=client)
    return encoder, classifier


def smashed_shape(encoder: nn.Module, image_shape: ImageShape) -> ImageShape:
    """Channels, height, width of what the encoder makes of an image."""
    return output_shape(encoder, image_shape)


def smashed_shape_of(cfg: ModelSettings, image_shape: ImageShape) -> ImageShape:
    """Channels, height, width of z, from settings alone: nothing is computed."""
    encoder, _ = build_split(cfg, image_shape, num_classes=2)  # z has the same size for any number
    return output_shape(encoder, image_shape)


def parameter_count(module: nn.Module) -> int:
    """How many numbers a module can learn."""
    return sum(parameter.numel() for parameter in module.parameters())
