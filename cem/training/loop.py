"""The training loop, one page, read top to bottom."""

import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from cem import CemError
from cem.config import GmmSurrogate, Run
from cem.data.loader import OnDeviceLoader
from cem.defenses import Defense
from cem.runtime import make_generator, peak_memory_mb
from cem.training.interruption import Interrupted, StopRequest
from cem.training.objective import BatchTerms, batch_terms
from cem.training.schedule import first_selectable, learning_rate, surrogate_weight
from cem.training.state import Row, State

SAVE_EVERY_S = 600  # an epoch longer than this is saved on the way, too
_EVALUATION_BATCH = 512


class TrainingError(CemError):
    """A training that cannot go on."""


def train_epochs(
    state: State,
    run: Run,
    defense: Defense,
    private: OnDeviceLoader,
    val: OnDeviceLoader,
    until: int,
    path: Path,
    stop: StopRequest,
) -> None:
    """Train from where `state` stands until epoch `until`, saving it to `path` after each epoch and on request.

    Raises TrainingError when a term of the objective is not finite, Interrupted when asked to stop.
    """
    cfg, device = run.training, private.images.device
    while state.epoch < until:
        started, former = time.monotonic(), state.elapsed
        lr, weight = learning_rate(cfg, state.epoch), surrogate_weight(run.surrogate, cfg, state.epoch)
        for group in state.optimizer.param_groups:
            group["lr"] = lr
        if state.step == 0:
            if _refit_due(run, state.epoch, weight):
                state.surrogate.refit(*clean_smashed(state.encoder, private))
            state.order = private.order()
            state.sums = torch.zeros(len(BatchTerms._fields), dtype=torch.float64, device=device)
        state.encoder.train()
        state.classifier.train()
        steps = range(state.step, private.steps)
        for step in tqdm(steps, f"epoch {state.epoch + 1}/{cfg.epochs}", leave=False, disable=not sys.stderr.isatty()):
            rows = state.order[step * private.batch_size : (step + 1) * private.batch_size]
            terms = batch_terms(state, private.batch(rows), defense, run, weight)
            _require_finite(terms, state.epoch, step, path)
            _descend(state, terms, cfg.max_grad_norm)
            state.sums += torch.stack([term.detach().double() for term in terms])
            state.step = step + 1
            if stop.signal is not None or time.monotonic() - started > SAVE_EVERY_S * (
                1 + state.elapsed // SAVE_EVERY_S
            ):
                state.elapsed = former + time.monotonic() - started
                state.save(path)
                if stop.signal is not None:
                    raise Interrupted
        accuracy = measure_accuracy(state, defense, val, run.seed)
        seconds = former + time.monotonic() - started
        state.history.append(_row(state, run, lr, weight, accuracy, seconds, private))
        if state.epoch >= first_selectable(cfg) and accuracy >= state.best_accuracy:
            state.best, state.best_accuracy, state.best_epoch = state.model(), accuracy, state.epoch
        state.epoch, state.step, state.elapsed = state.epoch + 1, 0, 0.0
        state.save(path)
        _log(state.history[-1], cfg.epochs)


def measure_accuracy(state: State, defense: Defense, loader: OnDeviceLoader, seed: int) -> float:
    """Share of images classified rightly from what leaves the client. Each call draws the same noise."""
    device = loader.images.device
    generator = make_generator(seed, "evaluation noise", device)
    state.encoder.eval()
    state.classifier.eval()
    right = torch.zeros((), dtype=torch.int64, device=device)
    with torch.no_grad():
        for images, labels in loader.plain(_EVALUATION_BATCH):
            logits = state.classifier(defense.corrupt(state.encoder(images), generator))
            right += (logits.argmax(1) == labels).sum()
    return int(right) / len(loader.labels)


def clean_smashed(encoder: torch.nn.Module, loader: OnDeviceLoader) -> tuple[torch.Tensor, torch.Tensor]:
    """ẑ of every image in order, in evaluation mode, and the labels."""
    encoder.eval()
    with torch.no_grad():
        return torch.cat([encoder(images) for images, _ in loader.plain(_EVALUATION_BATCH)]), loader.labels


def _refit_due(run: Run, epoch: int, weight: float) -> bool:
    """Not in the first epoch after the warm-up: the mixture was fitted to these very features."""
    since = epoch - run.training.warmup_epochs
    return (
        isinstance(run.surrogate, GmmSurrogate) and weight > 0 and since > 0 and since % run.surrogate.refit_every == 0
    )


def _descend(state: State, terms: BatchTerms, max_grad_norm: float | None) -> None:
    state.optimizer.zero_grad()
    if state.surrogate_optimizer is not None:
        state.surrogate_optimizer.zero_grad()
    terms.objective.backward()  # type: ignore[no-untyped-call]
    if max_grad_norm is not None:
        parameters = [p for group in state.optimizer.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm)
    state.optimizer.step()
    if state.surrogate_optimizer is not None:
        state.surrogate_optimizer.step()


def _require_finite(terms: BatchTerms, epoch: int, step: int, path: Path) -> None:
    names = ("cross_entropy", "defense_penalty", "surrogate_loss", "objective")
    values = torch.stack([getattr(terms, name).detach().double() for name in names])
    if bool(torch.isfinite(values).all()):
        return
    found = next((n, float(v)) for n, v in zip(names, values, strict=True) if not torch.isfinite(v))
    raise TrainingError(
        f"epoch {epoch + 1}, batch {step + 1}: expected a finite objective, but {found[0]} is {found[1]}. The last "
        f"good state is kept in {path}. Lower the learning rate or the surrogate's weight, or set max_grad_norm."
    )


def _row(
    state: State, run: Run, lr: float, weight: float, accuracy: float, seconds: float, private: OnDeviceLoader
) -> Row:
    """An epoch's line of the history; what was not computed stays empty."""
    mean = dict(zip(BatchTerms._fields, (state.sums / private.steps).tolist(), strict=True))
    surrogate = {
        name: mean[name] if weight > 0 else None for name in ("surrogate_loss", "leakage_nats", "intra_class_mse")
    }
    return {
        "epoch": state.epoch + 1,
        "phase": "warm_up" if state.epoch < run.training.warmup_epochs else "train",
        "cross_entropy": mean["cross_entropy"],
        "defense_penalty": mean["defense_penalty"],
        **surrogate,
        "train_accuracy": mean["correct"],
        "val_accuracy": accuracy,
        "lr": lr,
        "weight": weight,
        "images_per_s": private.steps * private.batch_size / seconds,
        "seconds": seconds,
        "peak_memory_mb": peak_memory_mb(private.images.device),
    }


def _log(row: Row, epochs: int) -> None:
    left = (epochs - row["epoch"]) * row["seconds"]
    text = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if isinstance(value, float))
    print(f"epoch {row['epoch']}/{epochs} ({row['phase']}): {text}; {left:.0f} s left", file=sys.stderr, flush=True)
