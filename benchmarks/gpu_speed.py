"""Sections of `gpu.py` that measure: speed, memory, waits. Each is a generator of rows, or of names and numbers."""

import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from cem.attacks.decoder import DecoderAttack
from cem.attacks.search import Search
from cem.config import (
    AttentionSurrogate,
    Augment,
    Decoder,
    GmmSurrogate,
    NoSurrogate,
    Run,
    Split,
    SyntheticDataset,
    Training,
    Vgg11,
)
from cem.data.loader import Batch
from cem.defenses import make_defense
from cem.evaluation import Victim, load_network
from cem.jobs.process import set_up_process
from cem.mixture import load_mixture
from cem.models import make_split, smashed_shape
from cem.storage.hdf5 import open_activations, open_dataset
from cem.surrogates import make_surrogate
from cem.training.measure import clean_smashed
from cem.training.protocol import train_batch
from cem.training.stages import Task

SURROGATES = {"none": NoSurrogate(), "gmm bound": GmmSurrogate(), "attention mixture": AttentionSurrogate()}
AUGMENT = Augment(crop_padding=4, flip=True, rotation_deg=15)


class Row(NamedTuple):
    what: str
    cpu: str = ""
    device: str = ""
    difference: str = ""
    tolerance: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Shape:
    """A data set's: side of the images, classes, images per batch, private images."""

    name: str
    side: int
    classes: int
    batch: int
    private: int


@dataclass(frozen=True)
class Scale:
    """How much is done. Width to small_net are of the small study, seconds of one repeated measurement."""

    shapes: tuple[Shape, ...]
    width: float
    images: int
    epochs: int
    small_net: str
    net: str
    seconds: float
    processes: tuple[int, ...]
    threads: int  # of the CPU's numbers
    wide: float = 1.0  # width of the networks whose speed is measured

    @property
    def run(self) -> Run:
        """The small study's run."""
        split = Split(private=self.images, val=self.images // 5, shadow=self.images // 5, test=self.images // 5)
        dataset = SyntheticDataset(images=2 * self.images, split=split, augment=AUGMENT)
        training = Training(epochs=self.epochs, lr=0.001, batch_size=64, probe_every=0, threads=self.threads)
        return Run(dataset=dataset, model=Vgg11(width=self.width), training=training)


def throughput(scale: Scale, shape: Shape, **_: Any) -> Iterator[Row]:
    """Loader, training step with each surrogate, refit of the mixture, waits for the device, memory."""
    device = set_up_process(1 if torch.cuda.is_available() else scale.run.training.threads)
    file, tasks, beside = Pictures(shape), {}, {}
    for name, surrogate in SURROGATES.items():
        before = allocated(device)
        task = make_task(wide_run(scale, shape, surrogate), file, device)
        if name == "none":
            rate = images_per_s(device, scale.seconds, partial(next_batch, task), shape.batch)
            yield Row(f"{shape.name}, loader", device=f"{rate:,.0f} images/s")
        if name == "gmm bound":
            yield Row(f"{shape.name}, first fit of the mixture", device=f"{refit_seconds(task, device):.2f} s")
            allocated(device)  # the peak is of a step, not of the fit
        take_step(task)
        beside[name] = f"{memory(device, before)}; {waits(task, device)}"
        tasks[name] = task
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(3):  # in turn: what else goes on meets all alike
        for name, task in tasks.items():
            rates[name].append(images_per_s(device, scale.seconds, partial(take_step, task), shape.batch))
    plain = statistics.median(rates["none"])
    for name, found in rates.items():
        rate = statistics.median(found)
        over = f"{100 * (plain / rate - 1):+.1f} % time over none" if name != "none" else ""
        said = f"{rate:,.0f} images/s; {beside[name]}"
        yield Row(f"{shape.name}, step with {name}", device=said, difference=over)
    before = allocated(device)
    times = [refit_seconds(tasks["gmm bound"], device)]
    while len(times) < 3 and sum(times) < scale.seconds:
        times.append(refit_seconds(tasks["gmm bound"], device))
    said = f"{statistics.median(times):.2f} s; {memory(device, before)} beside"
    yield Row(f"{shape.name}, refit of the mixture to {shape.private:,} images", device=said)


def attacks(scale: Scale, folder: Path, **_: Any) -> Iterator[Row]:
    """Images a second of a decoder's fit, and images times steps of a white-box search."""
    run = scale.run
    device = set_up_process(1 if torch.cuda.is_available() else run.training.threads)
    cfg = Decoder(net=scale.net, lr=1e-3, epochs=6)
    with open_dataset(folder / "data.h5") as data, open_activations(folder / "cpu/activations.h5") as smashed:
        network = load_network(folder / "cpu/none/model.safetensors", run, data, device)
        knowledge = Victim(data, smashed, make_defense(run.noise_std, []), network, 0, device).knowledge(cfg)
        curve = DecoderAttack(cfg).fit(knowledge).curve
    seconds = statistics.median(row["seconds"] for row in curve[1:])
    rate = int((1 - cfg.held_out) * knowledge.num_images) / seconds
    yield Row(f"decoder {scale.net}, an epoch with its held-out pass", device=f"{rate:,.0f} images/s")
    shape = scale.shapes[0]
    batch = Pictures(shape).images("val")[: 2 * shape.batch]
    images = torch.from_numpy(batch).to(device) / 255
    encoder, _ = make_split(Vgg11(width=scale.wide), (3, shape.side, shape.side), shape.classes)
    encoder = encoder.to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
    search = Search(encoder, steps=100_000, lr=0.4, range_weight=1.0, masked=False)
    searched = search.images(encoder(images), torch.full_like(images, 0.5), 1e-2)
    rate = images_per_s(device, scale.seconds, lambda: next(searched), len(images))
    yield Row(f"white-box search, {len(images)} images at once", device=f"{rate:,.0f} images·steps/s")


def side_by_side(scale: Scale, barrier: Any, rank: int, **_: Any) -> Iterator[tuple[str, float]]:
    """The same training in several processes at once: images per second of each."""
    device, shape = set_up_process(1), scale.shapes[0]
    task = make_task(wide_run(scale, shape, NoSurrogate()), Pictures(shape), device)
    take_step(task)
    for together in scale.processes:
        barrier.wait(60)
        if rank < together:
            rate = images_per_s(device, 2 * scale.seconds, partial(take_step, task), shape.batch)
            yield f"{shape.name}, {together} trainings side by side, all together", rate


class Pictures:
    """A prepared data set's interface over seeded images that show their class."""

    def __init__(self, shape: Shape) -> None:
        self.shape, self.num_classes, self.image_shape = shape, shape.classes, (3, shape.side, shape.side)
        self.made: dict[str, np.ndarray] = {}

    def labels(self, split: str) -> np.ndarray:
        count = self.shape.private if split == "private" else 4 * self.shape.batch
        return np.arange(count) % self.shape.classes

    def images(self, split: str) -> np.ndarray:
        if split not in self.made:
            draws, labels = np.random.default_rng(0), self.labels(split)
            patterns = draws.integers(0, 128, (self.shape.classes, *self.image_shape), np.uint8)
            self.made[split] = draws.integers(0, 128, (len(labels), *self.image_shape), np.uint8)
            self.made[split] += patterns[labels]
        return self.made[split]


def wide_run(scale: Scale, shape: Shape, surrogate: Any) -> Run:
    """A run whose speed is measured."""
    dataset, training = SyntheticDataset(side=shape.side, augment=AUGMENT), Training(batch_size=shape.batch)
    return Run(dataset=dataset, model=Vgg11(width=scale.wide), surrogate=surrogate, training=training)


def make_task(run: Run, file: Any, device: torch.device, start: Path | None = None) -> Task:
    """A training before its first step, as its stage makes it; a mixture without a start is fitted here."""
    labels = torch.from_numpy(file.labels("private"))
    encoder, _ = make_split(run.model, file.image_shape, file.num_classes, defenses=run.defenses)
    surrogate = make_surrogate(
        run.surrogate,
        smashed_shape=smashed_shape(encoder, file.image_shape),
        num_classes=file.num_classes,
        noise_std=run.noise_std,
        class_prior=torch.bincount(labels) / len(labels),
        num_samples=len(labels),
        mixture=load_mixture(start) if start else None,
    )
    task = Task(run, file, device, surrogate)
    task.state.order = task.private.order()
    return task


def next_batch(task: Task) -> Batch:
    """The loader's next batch; the order begins again at its end."""
    size, state = task.private.batch_size, task.state
    state.step = (state.step + 1) % task.private.steps
    return task.private.batch(state.order[state.step * size : (state.step + 1) * size])


def take_step(task: Task) -> dict[str, float]:
    """A step of a training with its loader; what it read."""
    client, server = task.state.client, task.state.server
    client.encoder.train()
    server.classifier.train()
    weight = task.run.surrogate.weight
    return train_batch(client, server, next_batch(task), weight, weight > 0).readings


def images_per_s(device: torch.device, seconds: float, work: Callable[[], Any], images: int) -> float:
    """Calls `work` for so long; it handles so many images at each call."""
    work()
    synchronize(device)
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(4):
            work()
        synchronize(device)
        calls += 4
    return calls * images / (time.perf_counter() - began)


def refit_seconds(task: Task, device: torch.device) -> float:
    began = time.perf_counter()
    task.state.client.surrogate.refit(
        *clean_smashed(task.state.client.encoder, task.state.client.defense, task.private)
    )
    synchronize(device)
    return time.perf_counter() - began


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def allocated(device: torch.device) -> int:
    """Bytes in use; the peak is counted from here."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def memory(device: torch.device, before: int) -> str:
    """The most memory a training has held, its images included."""
    if device.type != "cuda":
        return "peak memory not applicable"
    return f"at most {(torch.cuda.max_memory_allocated(device) - before) / 1e6:,.0f} MB"


def waits(task: Task, device: torch.device) -> str:
    """How often a step waits for the device, and where."""
    if device.type != "cuda":
        return "waits not applicable"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for _ in range(4):
            take_step(task)
        torch.cuda.set_sync_debug_mode("default")
    said = [one for one in caught if "called a synchronizing" in str(one.message)]
    places = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in said)
    return f"{len(said) / 4:g} waits a step ({', '.join(f'{place} {n / 4:g}' for place, n in places.items())})"
