"""The training loop, one page, read top to bottom."""

import sys
import time

import torch
from tqdm import tqdm

from cem import CemError
from cem.config import Run
from cem.data.loader import OnDeviceLoader
from cem.jobs.interruption import Checkpoints
from cem.jobs.process import peak_memory_mb
from cem.jobs.state import StateStore
from cem.training.gradients import NonFinite, NonFiniteError
from cem.training.history import Epoch, Means
from cem.training.measure import clean_smashed, measure_accuracy, probe_due, probe_leakage
from cem.training.protocol import train_batch
from cem.training.pruning import prune_client
from cem.training.schedule import first_selectable, surrogate_computed, surrogate_weight
from cem.training.state import State


class TrainingError(CemError):
    """A training that cannot go on."""


def train_epochs(
    state: State, run: Run, private: OnDeviceLoader, val: OnDeviceLoader, until: int, store: StateStore
) -> None:
    """Train from where `state` stands until epoch `until`, saving it after each epoch and on request.

    Raises TrainingError when a number is not finite that must be, Interrupted when asked to stop.
    """
    client, server = state.client, state.server
    while state.epoch < until:
        started, former = time.monotonic(), state.elapsed
        _start_epoch(state, run, private)
        _train_epoch(state, run, private, store)
        accuracy = measure_accuracy(client.encoder, server.classifier, client.defense, val, run.seed)
        seconds = former + time.monotonic() - started
        probed = None
        if probe_due(run.training, state.epoch):
            probed = probe_leakage(client.encoder, client.defense, run, state.epoch, private, val)
        row = _row(state, run, seconds, private)._replace(val_accuracy=accuracy, probe_leakage_nats=probed)
        state.history.append(row)
        selectable = max(first_selectable(run.surrogate, run.training), run.pruned_before or 0)
        if state.epoch >= selectable and accuracy >= state.best_accuracy:
            state.best, state.best_accuracy, state.best_epoch = state.model(), accuracy, state.epoch
        state.epoch, state.step, state.elapsed = state.epoch + 1, 0, 0.0
        client.world.require_same(state.learned()[0])
        state.save(store)
        _log(row, run.training.epochs)


def _start_epoch(state: State, run: Run, private: OnDeviceLoader) -> None:
    """Set the learning rate; at the first batch, prune, let the surrogate look at the data, draw the batches' order."""
    cfg, client = run.training, state.client
    if state.epoch == run.pruned_before and state.step == 0:
        prune_client(client, run.trained_model.pruned_part)
    for optimizer in (client.optimizer, state.server.optimizer):
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr_at(state.epoch)
    if state.step == 0:
        if surrogate_computed(run.surrogate, cfg, state.epoch):
            since = state.epoch - cfg.warmup_epochs
            client.surrogate.take_noise(client.defense.channel.noise_std)
            if since == 0 and run.surrogate.measures_threshold:
                client.surrogate.measure_threshold(*clean_smashed(client.encoder, client.defense, private))
            client.surrogate.begin_epoch(since / max(1, cfg.epochs - cfg.warmup_epochs - 1))
            if run.surrogate.refit_due(since):
                client.surrogate.refit(*clean_smashed(client.encoder, client.defense, private))
        state.order, state.means, state.nonfinite = private.order(), Means(), 0
    client.encoder.train()
    client.defense.learned.train()
    state.server.classifier.train()


def _train_epoch(state: State, run: Run, private: OnDeviceLoader, store: StateStore) -> None:
    """The batches of an epoch that are left."""
    cfg, started, former = run.training, time.monotonic(), state.elapsed
    weight = surrogate_weight(run.surrogate, cfg, state.epoch)
    with_surrogate = surrogate_computed(run.surrogate, cfg, state.epoch)

    def save() -> None:
        state.elapsed = former + time.monotonic() - started
        state.save(store)

    checkpoints = Checkpoints(store, save)
    steps = range(state.step, private.steps)
    for step in tqdm(steps, f"epoch {state.epoch + 1}/{cfg.epochs}", leave=False, disable=not sys.stderr.isatty()):
        batch = private.batch(state.order[step * private.batch_size : (step + 1) * private.batch_size])
        try:
            readings, failure = train_batch(state.client, state.server, batch, weight, with_surrogate)
        except NonFiniteError as error:
            raise _diverged(state, step, error.found, store) from None
        if failure is not None:
            _without_surrogate(state, run, step, failure, store)
        state.means.add(readings)
        state.step = step + 1
        checkpoints.after_batch()


def _without_surrogate(state: State, run: Run, step: int, failure: NonFinite, store: StateStore) -> None:
    """Count a batch that went without the surrogate. Raises TrainingError when there have been too many."""
    state.nonfinite += 1
    count, limit = state.nonfinite + sum(row.nonfinite for row in state.history), run.training.max_nonfinite
    if count > limit:
        raise _diverged(
            state,
            step,
            failure,
            store,
            f", or raise max_nonfinite: batch {count} of the run is one above its {limit}",
        )
    if state.nonfinite == 1:
        print(
            f"epoch {state.epoch + 1}, batch {step + 1}: {failure.term} is {failure.value}; the batch went without the "
            "surrogate (further ones of this epoch are counted in the history only)",
            file=sys.stderr,
        )


def _diverged(state: State, step: int, found: NonFinite, store: StateStore, remedy: str = "") -> TrainingError:
    return TrainingError(
        f"epoch {state.epoch + 1}, batch {step + 1}: expected a finite {found.term}, but it is {found.value}. "
        f"The last good state is kept in {store.place}. "
        f"Lower the learning rate or the surrogate's weight, or set max_grad_norm{remedy}."
    )


def _row(state: State, run: Run, seconds: float, private: OnDeviceLoader) -> Epoch:
    """An epoch's line of the history; what was not computed stays empty."""
    with torch.no_grad():
        told = state.client.surrogate.monitor() if surrogate_computed(run.surrogate, run.training, state.epoch) else {}
    return Epoch(
        epoch=state.epoch + 1,
        phase="warm_up" if state.epoch < run.training.warmup_epochs else "train",
        **state.means.values(),
        **told,
        nonfinite=state.nonfinite,
        lr=run.training.lr_at(state.epoch),
        weight=surrogate_weight(run.surrogate, run.training, state.epoch),
        images_per_s=private.steps * private.batch_size / seconds,
        seconds=seconds,
        peak_memory_mb=peak_memory_mb(private.images.device),
    )


def _log(row: Epoch, epochs: int) -> None:
    left = (epochs - row.epoch) * row.seconds
    text = ", ".join(f"{name} {value:.4g}" for name, value in row._asdict().items() if isinstance(value, float))
    print(f"epoch {row.epoch}/{epochs} ({row.phase}): {text}; {left:.0f} s left", file=sys.stderr, flush=True)
