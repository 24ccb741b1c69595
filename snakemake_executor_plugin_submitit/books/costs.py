"""What the jobs used, written down: a line per job in `costs.jsonl`, and on request in the job's own JSON output."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from snakemake_executor_plugin_submitit.books.records import write_whole

FILE = "costs.jsonl"


@dataclass(frozen=True)
class AttemptCost:
    """One start of a job. source: accounting or job. lost: it ended without a result. None: unavailable, not zero."""

    job: str
    node: str
    source: str
    state: str
    lost: bool
    elapsed_s: float | None
    cpu_s: float | None
    gpu_s: float | None
    max_rss_mb: float | None


def write_costs(root: Path, outputs: list[str], attempts: list[AttemptCost]) -> None:
    """Append a line on the job that made these files."""
    line = json.dumps({"outputs": outputs, "attempts": [asdict(attempt) for attempt in attempts]}) + "\n"
    with (root / FILE).open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def goal(names: str, rule: str, outputs: list[str]) -> Path | None:
    """The one output of a job that is to hold its costs; None for a group, whose costs are not of one output alone.

    names: file names, separated by commas.
    """
    found = [Path(output) for output in outputs if Path(output).name in names.split(",")]
    return found[0] if len(found) == 1 and "+" not in rule else None


def hand_over(path: Path, attempts: list[AttemptCost]) -> str:
    """Put costs into a job's JSON output, under the key `costs`, whole or not at all; why not, if it cannot be done.

    The file keeps its time: for Snakemake, and for what was made from it, it is the file that the job wrote.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            return f"{path}: expected a JSON object to put the job's costs in, found a {type(content).__name__}"
        content["costs"] = [asdict(attempt) for attempt in attempts]
        write_whole(path, json.dumps(content, indent=2) + "\n", keep_times=True)
    except (OSError, ValueError) as error:
        return f"{path}: cannot put the job's costs in it ({error}); they are in {FILE} alone"
    return ""
