"""The history of a training: one row per epoch, one declaration for the table's columns."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Epoch(NamedTuple):
    """A row of history.csv; empty (None) is what was not computed.

    Terms, norms and train_accuracy are means over the batches that computed them. Gradient norms are L2 over a whole
    batch: of a term at ẑ (λ included), of the surrogate's own parameters (fit), and of what each optimizer descends on
    before clipping (client, server). clipped: share of the batches whose gradient was longer than max_grad_norm, empty
    without that setting; clip_factor: mean factor that these batches' gradients were scaled by. probe_leakage_nats is
    of a held-out mixture; leakage_nats the surrogate's own; conditional_nats its lower bound on leakage, relative to
    h(x). nonfinite: batches that went without the surrogate. seconds: without the probe.
    """

    epoch: int
    phase: str
    cross_entropy: float | None = None
    defense_penalty: float | None = None
    surrogate_loss: float | None = None
    fit_loss: float | None = None
    leakage_nats: float | None = None
    conditional_nats: float | None = None
    probe_leakage_nats: float | None = None
    intra_class_mse: float | None = None
    cross_entropy_grad_norm: float | None = None
    defense_grad_norm: float | None = None
    surrogate_grad_norm: float | None = None
    fit_grad_norm: float | None = None
    client_grad_norm: float | None = None
    server_grad_norm: float | None = None
    client_clipped: float | None = None
    client_clip_factor: float | None = None
    server_clipped: float | None = None
    server_clip_factor: float | None = None
    threshold: float | None = None
    error_threshold: float | None = None
    attention_gate: float | None = None
    feed_forward_gate: float | None = None
    slot_usage_entropy: float | None = None
    lone_samples: float | None = None
    nonfinite: int = 0
    train_accuracy: float | None = None
    val_accuracy: float | None = None
    lr: float | None = None
    weight: float | None = None
    images_per_s: float | None = None
    seconds: float = 0.0
    peak_memory_mb: float | None = None


_PARSERS = {int: int, str: str}  # every other column holds floats


@dataclass
class Means:
    """Running means of readings that not every batch has."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, readings: Mapping[str, float]) -> None:
        """Take in a batch's readings."""
        for name, value in readings.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def values(self) -> dict[str, float]:
        """The means so far."""
        return {name: total / self.counts[name] for name, total in self.sums.items()}


def history_csv(history: Iterable[Epoch]) -> str:
    """The table as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(Epoch._fields)
    writer.writerows(history)
    return text.getvalue()


def read_history(path: Path) -> list[Epoch]:
    """The table of a warm-up, to go on from; columns that it lacks, of an older version, stay empty."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    parsers = {name: _PARSERS.get(kind, float) for name, kind in Epoch.__annotations__.items()}
    return [Epoch(**{name: parsers[name](text) for name, text in row.items() if text}) for row in rows]
