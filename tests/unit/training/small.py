"""A training inside the test's own process: random images, parties, loaders and state for a run's settings."""

import math
from pathlib import Path

import torch

from cem.config import Run
from cem.data.loader import Batch, OnDeviceLoader
from cem.defenses import Place, initial_noise_std, make_defense
from cem.jobs.process import make_generator
from cem.jobs.state import StateStore
from cem.models import make_split, seed_dropout, smashed_shape
from cem.storage.tensors import load_checkpoint, save_checkpoint
from cem.surrogates import Surrogate, make_surrogate
from cem.training.distributed import World
from cem.training.loop import train_epochs
from cem.training.protocol import Client, Server, make_parties
from cem.training.state import State

CLASSES, SHAPE = 3, (1, 32, 32)


def make_state(run: Run, surrogate: Surrogate | None = None, world: World | None = None) -> State:
    """Parties of a run, as its stage makes them; `surrogate` takes the place of the settings' own."""
    generators = {name: make_generator(run.seed, name, "cpu") for name in ("data", "noise", "dropout", "surrogate")}
    encoder, classifier = make_split(run.model, SHAPE, CLASSES, make_generator(run.seed, "model", "cpu"), run.defenses)
    seed_dropout(classifier, generators["dropout"])
    defense, shape = make_defense(run.noise_std, run.defenses), smashed_shape(encoder, SHAPE)
    if surrogate is None:
        noise_std = initial_noise_std(run, shape)
        surrogate = make_surrogate(run.surrogate, smashed_shape=shape, num_classes=CLASSES, noise_std=noise_std)
    dtype = torch.get_default_dtype()
    place = Place(SHAPE, shape, CLASSES)
    defense.begin_training(place, make_generator(run.seed, "defense", "cpu"), torch.empty(0, dtype=dtype))
    halves = encoder.to(dtype), classifier.to(dtype)
    parties = make_parties(run, *halves, defense, surrogate.to(dtype), generators, world)
    state = State(*parties, generators)
    if run.surrogate.mixture is not None:
        smashed = torch.rand(60, *smashed_shape(encoder, SHAPE), generator=make_generator(0, "start", "cpu"))
        state.client.surrogate.refit(smashed, torch.arange(60) % CLASSES)
    return state


def make_batch(seed: int, size: int = 18) -> Batch:
    """Images that show their class a little."""
    labels = torch.arange(size) % CLASSES
    images = torch.rand(size, *SHAPE, generator=make_generator(seed, "images", "cpu"))
    return Batch(0.7 * images + 0.1 * labels.view(-1, 1, 1, 1), labels)


def make_loader(run: Run, seed: int, generator: torch.Generator, size: int = 96) -> OnDeviceLoader:
    images, labels = make_batch(seed, size)
    raw = (255 * images).to(torch.uint8)
    return OnDeviceLoader(raw, labels, run.training.batch_size, run.dataset.augmentation, generator)


class FileStore(StateStore):
    """Keeps a state in a file, and asks to stop when it has been asked so many times (absent: never)."""

    def __init__(self, path: Path, looks: int | None = None) -> None:
        self.path, self.looks = path, math.inf if looks is None else looks

    @property
    def place(self) -> str:
        return str(self.path)

    def load(self):
        return load_checkpoint(self.path, "state") if self.path.exists() else None

    def save(self, tensors, header) -> None:
        save_checkpoint(self.path, "state", tensors, header)

    def asked_to_stop(self) -> bool:
        self.looks -= 1
        return self.looks < 0


def train(state: State, run: Run, path: Path, until: int | None = None, looks: int | None = None) -> None:
    """Train `state` up to an epoch (absent: all), or until it has asked so many times whether to stop."""
    private = make_loader(run, 1, state.generators["data"])
    val = make_loader(run, 2, make_generator(run.seed, "val", "cpu"))
    train_epochs(state, run, private, val, until or run.training.epochs, FileStore(path, looks))


def weights(state: State) -> dict[str, torch.Tensor]:
    """Everything learned: model, surrogate, and the optimizers' momenta."""
    surrogate = {f"surrogate.{name}": value.clone() for name, value in state.client.surrogate.state_dict().items()}
    return state.learned()[0] | surrogate


def model(client: Client, server: Server) -> list[torch.Tensor]:
    """Copies of the parameters of encoder and classifier."""
    return [p.detach().clone() for module in (client.encoder, server.classifier) for p in module.parameters()]
