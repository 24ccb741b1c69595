"""torchvision's classifiers, cut at a named module."""

from difflib import get_close_matches
from functools import partial

import torch
import torchvision
from torch import nn

from cem.config import Torchvision
from cem.models.dropout import StochasticDepth
from cem.models.graph import SHOWN, UNTRACEABLE, Graph, pieces, resumable
from cem.models.split import Architecture, ImageShape, ModelError

CHANNELS = 3  # that each of them takes
_SEVERAL_HEADS = ("googlenet", "inception_v3")  # in training, unless they are told not to


class Classifier(Graph):
    """A classifier as a graph. Raises ModelError where it does not exist, or cannot be taken apart."""

    def __init__(self, name: str, num_classes: int) -> None:
        names = torchvision.models.list_models(module=torchvision.models)
        if name not in names:
            near = ", ".join(get_close_matches(name, names, SHOWN)) or ", ".join(names)
            raise ModelError(f"classifier: torchvision has none called {name!r}; near it: {near}")
        self.make = partial(_make, name, num_classes)
        try:
            with torch.device("meta"):
                whole = self.make()
            super().__init__(name, whole)
        except UNTRACEABLE as error:
            raise ModelError(f"classifier {name}: cannot be cut: {error}. Choose another.") from error


def _make(name: str, num_classes: int) -> nn.Module:
    """The classifier with random weights, whose dropout can be resumed."""
    one_head = {"aux_logits": False, "init_weights": True} if name in _SEVERAL_HEADS else {}
    made = resumable(torchvision.models.get_model(name, weights=None, num_classes=num_classes, **one_head))
    for part in list(made.modules()):
        for place, child in part.named_children():
            if isinstance(child, torchvision.ops.StochasticDepth):
                setattr(part, place, StochasticDepth(child.p))
    return made


def build_torchvision(cfg: Torchvision, image_shape: ImageShape, num_classes: int) -> Architecture:
    """One stage, up to the module; the head is the rest. Raises ModelError for one that gives no map or vector."""
    classifier = Classifier(cfg.classifier, num_classes)
    shown = "×".join(map(str, image_shape))
    refused = f"torchvision's {cfg.classifier} does not take images of {shown} (channels, height, width)"
    if image_shape[0] != CHANNELS:
        raise ModelError(
            f"{refused}: it takes those of {CHANNELS} channels. Set channels: {CHANNELS} of the data set, which "
            "repeats grey ones"
        )
    try:
        return pieces(classifier, cfg.module, image_shape, classifier.make, "Cut elsewhere, or take vit_small")
    except RuntimeError as error:
        raise ModelError(f"{refused}: {error}") from error
