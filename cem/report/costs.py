"""What the cluster says that jobs used. Read from the executor's notes where there are any; unknown is None, never 0.

The format, one line of JSON a job in .snakemake/submitit/costs.jsonl: `outputs`, and `attempts`, each with `source`
(accounting or job), `lost`, `elapsed_s`, `cpu_s`, `gpu_s` and `max_rss_mb`, null where unavailable.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COSTS = Path(".snakemake/submitit/costs.jsonl")


@dataclass(frozen=True)
class Cost:
    """What one job used over all of its attempts. lost_s: elapsed in attempts that gave no result.

    source: accounting, job, or mixed; empty where nothing is known (a study that did not run on a cluster).
    """

    source: str = ""
    gpu_s: float | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None
    lost_s: float | None = None


class Costs:
    """Costs by the files that were made; the last job that made a file counts."""

    def __init__(self, path: Path) -> None:
        self._attempts: dict[str, list[dict[str, Any]]] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            job = json.loads(line)
            self._attempts |= dict.fromkeys(job["outputs"], job["attempts"])

    def of(self, output: Path) -> Cost:
        """Of the job that made a file."""
        attempts = self._attempts.get(str(output))
        if not attempts:
            return Cost()
        sources = {attempt["source"] for attempt in attempts}
        peaks = [attempt["max_rss_mb"] for attempt in attempts if attempt["max_rss_mb"] is not None]
        return Cost(
            source=sources.pop() if len(sources) == 1 else "mixed",
            gpu_s=_total(attempts, "gpu_s"),
            cpu_s=_total(attempts, "cpu_s"),
            max_rss_mb=max(peaks, default=None),
            lost_s=_total([attempt for attempt in attempts if attempt["lost"]], "elapsed_s"),
        )


def _total(attempts: list[dict[str, Any]], name: str) -> float | None:
    """A sum of which no part is unknown."""
    values = [attempt[name] for attempt in attempts]
    return None if None in values else float(sum(values))
