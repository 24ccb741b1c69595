"""Sections of `gpu.py` that compare: the CPU's numbers with the device's, a stopped job with one left alone."""

import csv
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd
import torch
from gpu_speed import SURROGATES, Row, Scale, make_task, take_step

from cem.config import Decoder, GmmSurrogate, Linear, MixtureFit
from cem.evaluation import attack_run
from cem.jobs.process import set_up_process
from cem.jobs.state import FolderStore
from cem.storage.files import sha256
from cem.storage.hdf5 import Reader, open_dataset
from cem.training import extract_activations, measure_mixture, train, warm_up


class HostGenerator(torch.Generator):
    """Draws on the CPU, whatever device it is made for, so that both devices are given the same numbers."""

    def __new__(cls, device: torch.device | str = "cpu") -> "HostGenerator":
        made = super().__new__(cls)
        made.stated = torch.device(device)
        return made

    device = property(lambda self: self.stated)


def draw_on_the_host() -> None:
    """From here on this process makes its random numbers on the CPU."""

    def moved(draw: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *size, device=None, **how: draw(*size, **how).to(device or "cpu")

    def exponential_(tensor: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        return tensor.copy_(exponential(torch.empty(tensor.shape, dtype=tensor.dtype), generator=generator))

    exponential, torch.Tensor.exponential_ = torch.Tensor.exponential_, exponential_
    for name in ("rand", "randn", "randint", "randperm"):
        setattr(torch, name, moved(getattr(torch, name)))
    torch.Generator = HostGenerator


def agreement(scale: Scale, folder: Path, own: str, **_: Any) -> Iterator[tuple[str, float]]:
    """Numbers that must not depend on the device. Those of one set of activations are of the CPU's, on both."""
    draw_on_the_host()
    run, data, given, out = scale.run, folder / "data.h5", folder / "cpu", folder / own
    device = set_up_process(run.training.threads)
    warm = (out / "warm.safetensors", out / "warm.csv")
    warm_up(run, data, *warm, out / "state")
    yield "warm-up, epoch 1: cross entropy", float(last_row(warm[1])["cross_entropy"])
    if own == "cpu":
        extract_activations(run, data, warm[0], "warm_up", "float16", out / "warm.h5")
        measure_mixture(run, GmmSurrogate().mixture, out / "warm.h5", out / "start.h5")
    for name, surrogate in SURROGATES.items():
        one = run.model_copy(update={"surrogate": surrogate})
        start = given / "start.h5" if name == "gmm bound" else None
        with open_dataset(data) as file:
            task = make_task(one, file, device, start)
            for step in range(1, 6):
                found = take_step(task)
                if step in (1, 5):
                    yield f"{name}, step {step}: cross entropy", found["cross_entropy"]
                    if "surrogate_loss" in found:
                        yield f"{name}, step {step}: surrogate's loss", found["surrogate_loss"]
        train(one, data, *warm, start, out / name, out / "state")
        row = last_row(out / name / "history.csv")
        yield f"{name}, epoch {run.training.epochs}: cross entropy", float(row["cross_entropy"])
        if row["leakage_nats"]:
            yield f"{name}, epoch {run.training.epochs}: leakage, nats", float(row["leakage_nats"])
    model, activations = given / "none" / "model.safetensors", given / "activations.h5"
    if own == "cpu":
        extract_activations(run, data, model, "model", "float16", activations)
    measure_mixture(run, MixtureFit(fit="em"), activations, out / "mixture.h5")
    with Reader(out / "mixture.h5", kind="mixture") as file:
        yield "leakage of a mixture, same z: held-out, nats", file.attrs["leakage_nats"]
        yield "leakage of a mixture, same z: bound, nats", file.attrs["bound_nats"]
    attacks = [Linear(), Decoder(net=scale.small_net, lr=1e-3, epochs=3, batch_size=64)]
    attack_run(
        run, attacks, activations=activations, data=data, model=model, folder=out, num_images=4, results=out / "state"
    )
    for attack, kind in (("linear", "linear, same z"), ("decoder", "decoder")):
        scores = pd.read_parquet(out / attack / "metrics.parquet")
        for scope in ("train", "infer"):
            yield f"attack {kind}: MSE on {scope}", float(scores.query("scope == @scope")["mse"].mean())


def resumption(scale: Scale, folder: Path, **_: Any) -> Iterator[Row]:
    """A job that was stopped and started again must end with the bits of one that was left alone."""
    run, data, out = scale.run, folder / "data.h5", folder / "resumption"
    set_up_process(run.training.threads)
    warm = (out / "warm.safetensors", out / "warm.csv")
    warm_up(run, data, *warm, out / "state")

    def trained(surrogate: Any, place: Path) -> Path:
        start = folder / "cpu/start.h5" if isinstance(surrogate, GmmSurrogate) else None
        train(run.model_copy(update={"surrogate": surrogate}), data, *warm, start, place, out / "state")
        return place / "model.safetensors"

    def attacked(place: Path) -> Path:
        attack = Decoder(net=scale.small_net, lr=1e-3, epochs=3, batch_size=64)
        paths = {"model": folder / "cpu/none/model.safetensors", "activations": folder / "cpu/activations.h5"}
        attack_run(run, [attack], data=data, **paths, folder=place, num_images=4, results=out / "state")
        return place / "decoder/metrics.parquet"

    jobs = {f"training, {name}": partial(trained, surrogate) for name, surrogate in SURROGATES.items()}
    for name, job in (jobs | {"decoder": attacked}).items():
        alone = sha256(job(out / name / "alone"))
        stopped = False
        with stopping_after((scale.epochs - 1) * scale.images // 100), suppress(SystemExit):
            stopped = True
            job(out / name / "stopped")
            stopped = False
        again = sha256(job(out / name / "stopped"))
        verdict = "ok" if stopped and alone == again else "NOT OK"
        yield Row(f"resume: {name}, sha256", f"alone {alone[:12]}", f"resumed {again[:12]}", "", "equal", verdict)


@contextmanager
def stopping_after(batches: int) -> Iterator[None]:
    """The job in this block gets the signal that asks it to save and stop, after so many batches."""
    left, ask = iter(range(batches)), FolderStore.asked_to_stop

    def counting(store: FolderStore) -> bool:
        if next(left, None) is None:
            signal.raise_signal(signal.SIGUSR2)
        return ask(store)

    with mock.patch.object(FolderStore, "asked_to_stop", counting):
        yield


def last_row(history: Path) -> dict[str, str]:
    with history.open(newline="") as file:
        return list(csv.DictReader(file))[-1]
