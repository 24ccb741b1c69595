"""What a training used, by its train.json: as a cluster counted it, else as the job itself did. Unknown is None, not 0.

`costs`, which a cluster's executor adds when the job is done: a row an attempt with `source` (accounting, or job where
there is none), `lost` (no result came of it), `elapsed_s`, `cpu_s`, `gpu_s` and `max_rss_mb`. `attempts`: see
`cem.jobs.attempts`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Cost:
    """What one job used over all of its attempts. lost_s: elapsed in attempts that gave no result.

    source: accounting, job, or mixed.
    """

    source: str
    gpu_s: float | None
    cpu_s: float | None
    max_rss_mb: float | None
    lost_s: float | None


def cost_of(training: Mapping[str, Any]) -> Cost:
    """Of a training."""
    rows: Rows = training.get("costs") or [_own(attempt) for attempt in training["attempts"]]
    sources = {row["source"] for row in rows}
    peaks = [row["max_rss_mb"] for row in rows if row["max_rss_mb"] is not None]
    return Cost(
        source=sources.pop() if len(sources) == 1 else "mixed",
        gpu_s=_total(rows, "gpu_s"),
        cpu_s=_total(rows, "cpu_s"),
        max_rss_mb=max(peaks, default=None),
        lost_s=_total([row for row in rows if row["lost"]], "elapsed_s"),
    )


def _own(attempt: Mapping[str, Any]) -> dict[str, Any]:
    """An attempt as the job itself tells it."""
    return {
        "source": "job",
        "lost": attempt.get("ended") != "done",
        "elapsed_s": attempt["seconds"],
        "gpu_s": attempt.get("gpu_seconds"),
        "cpu_s": attempt.get("cpu_seconds"),
        "max_rss_mb": attempt.get("max_rss_mb"),
    }


def _total(rows: Rows, name: str) -> float | None:
    """A sum of which no part is unknown."""
    values = [row[name] for row in rows]
    return None if None in values else float(sum(values))
