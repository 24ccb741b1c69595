"""What the jobs used: by the accounting where there is one, else by the jobs' own books. Unknown is not zero."""

import contextlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from snakemake_executor_plugin_submitit.events import Attempt, read_attempts
from snakemake_executor_plugin_submitit.local import Local
from snakemake_executor_plugin_submitit.records import Submission
from snakemake_executor_plugin_submitit.slurm import ALIVE, Cost, Slurm

FILE = "costs.jsonl"
_CLOCKS_S = 2.0  # by which the clocks of nodes and accounting may differ


@dataclass(frozen=True)
class AttemptCost:
    """One start of a job. source: accounting or job. lost: it ended without a result. None: unavailable."""

    job: str
    node: str
    source: str
    state: str
    lost: bool
    elapsed_s: float | None
    cpu_s: float | None
    gpu_s: float | None
    max_rss_mb: float | None


def costs_of(history: list[tuple[Submission, int]], cluster: Slurm | Local) -> list[AttemptCost]:
    """What the submissions of one job used, each attempt."""
    return [attempt for submission, index in history for attempt in _attempts(submission, index, cluster)]


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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.costs")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            return f"{path}: expected a JSON object to put the job's costs in, found a {type(content).__name__}"
        content["costs"] = [asdict(attempt) for attempt in attempts]
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        shutil.copystat(path, temporary)
        temporary.replace(path)
    except (OSError, ValueError) as error:
        return f"{path}: cannot put the job's costs in it ({error}); they are in {FILE} alone"
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return ""


def _attempts(submission: Submission, index: int, cluster: Slurm | Local) -> list[AttemptCost]:
    job = submission.element(index)
    own = read_attempts(submission.events(index))
    found = []
    for one in own:
        elapsed, gpus = one.last.get("elapsed_s"), len(one.start["gpus"])
        lost = not (one.how == "end" and one.last.get("code") == 0)
        gpu_s = None if elapsed is None else elapsed * gpus
        found.append(
            AttemptCost(
                job, one.node, "job", one.how, lost, elapsed, one.last.get("cpu_s"), gpu_s, one.last.get("max_rss_mb")
            )
        )
    accounted = (cluster.costs(job) if cluster.accounting else None) or []
    return [_accounted(one, mine, accounted) for one, mine in zip(own, found, strict=True)]


def _accounted(attempt: Attempt, mine: AttemptCost, accounted: list[Cost]) -> AttemptCost:
    """The accounting's row of an attempt: the one within whose time it began; the job's own where there is none."""
    begun = float(attempt.start["time"])
    for cost in accounted:
        over = cost.state not in ALIVE or cost.state == "REQUEUED"  # there a word for an attempt of the past
        if over and cost.started - _CLOCKS_S <= begun <= cost.started + cost.elapsed_s + _CLOCKS_S:
            return AttemptCost(
                mine.job,
                mine.node,
                "accounting",
                cost.state,
                mine.lost,
                cost.elapsed_s,
                cost.cpu_s,
                cost.elapsed_s * cost.gpus,
                cost.max_rss_mb if cost.max_rss_mb is not None else mine.max_rss_mb,
            )
    return mine
