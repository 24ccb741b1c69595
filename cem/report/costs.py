"""What a job used, by its record: as a cluster counted it, else as the job itself did. Unknown is None, not 0."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from cem.storage.job_records import Attempt, JobCost, JobRecord


@dataclass(frozen=True)
class Cost:
    """What one job used over all of its attempts. lost_s: of elapsed_s, in attempts that gave no result.

    source: accounting, job, or mixed.
    """

    source: str
    elapsed_s: float | None
    gpu_s: float | None
    cpu_s: float | None
    max_rss_mb: float | None
    lost_s: float | None


def cost_of(record: JobRecord) -> Cost:
    """Of the job that left this record."""
    rows = record.costs or [_own(attempt) for attempt in record.attempts]
    sources = {row.source for row in rows}
    return Cost(
        source=sources.pop() if len(sources) == 1 else "mixed",
        elapsed_s=_total([row.elapsed_s for row in rows]),
        gpu_s=_total([row.gpu_s for row in rows]),
        cpu_s=_total([row.cpu_s for row in rows]),
        max_rss_mb=max((row.max_rss_mb for row in rows if row.max_rss_mb is not None), default=None),
        lost_s=_total([row.elapsed_s for row in rows if row.lost]),
    )


def hours(seconds: Iterable[float | None]) -> str:
    """Of several jobs together; ≥ where what some of them used is unknown, and a word where that of all is."""
    every = list(seconds)
    known = [one for one in every if one is not None]
    if not known:
        return "unavailable"
    return ("≥ " if len(known) < len(every) else "") + f"{sum(known) / 3600:.3g}"


def _own(attempt: Attempt) -> JobCost:
    """An attempt as the job itself tells it."""
    return JobCost(
        source="job",
        lost=attempt.ended != "done",
        elapsed_s=attempt.seconds,
        cpu_s=attempt.cpu_seconds,
        gpu_s=attempt.gpu_seconds,
        max_rss_mb=attempt.max_rss_mb,
    )


def _total(values: Sequence[float | None]) -> float | None:
    """A sum of which no part is unknown."""
    known = [value for value in values if value is not None]
    return float(sum(known)) if len(known) == len(values) else None
