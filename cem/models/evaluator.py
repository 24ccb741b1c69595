"""The evaluator's network: image to embedding to class."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from cem.models.decoder import Shape
from cem.models.init import allocate, initialise
from cem.types import Images

WIDTHS = (32, 64, 128, 256)  # channels after each halving of the side; the last are the embedding's
LARGEST = 64  # pixels per side: larger images are averaged down to it, so that the cost has a limit


class EvaluatorNet(nn.Module):
    """Convolutions with batch normalisation, averaged over positions; a normalised embedding; one linear layer.

    The normalisation centres the embedding and gives each of its numbers the same weight: that of two images which have
    nothing in common has a cosine near 0. Source: Luo, Gu, Liao, Lai & Jiang 2019 (arXiv 1903.07071), "BNNeck".
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for after in WIDTHS:
            layers += [nn.MaxPool2d(2)] if layers else []
            layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers)
        self.neck = nn.BatchNorm1d(before, affine=False)
        self.head = nn.Linear(before, num_classes)

    def embed(self, images: Images) -> Float[Tensor, "batch embedding"]:
        """The penultimate features of images in [0, 1], of any side from 8 pixels on."""
        if max(images.shape[2:]) > LARGEST:
            images = adaptive_avg_pool2d(images, LARGEST)
        found: Tensor = self.neck(self.layers(images.contiguous(memory_format=torch.channels_last)).mean((2, 3)))
        return found

    def forward(self, images: Images) -> Float[Tensor, "batch classes"]:
        logits: Tensor = self.head(self.embed(images))
        return logits


def make_evaluator(image_shape: Shape, num_classes: int, generator: torch.Generator) -> EvaluatorNet:
    """An evaluator's network for images [channels, height, width], on the CPU, as its generator is."""
    with torch.device("meta"):  # whose constructors have nothing to draw from the global generator
        net = EvaluatorNet(image_shape[0], num_classes)
    allocate(net, generator.device)
    initialise(net, generator)
    return net.to(memory_format=torch.channels_last)
