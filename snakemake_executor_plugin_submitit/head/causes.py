"""Why a job ended as it did, in one line, and whether sending it again can help."""

import re
from dataclasses import dataclass
from typing import Literal

from snakemake_executor_plugin_submitit.books.events import Attempt
from snakemake_executor_plugin_submitit.cluster.resources import Request

SAVED = 75  # EX_TEMPFAIL: the script saved its state and asks to be run again
_OUT_OF_MEMORY = re.compile(r"(?im)exceeded memory limit|oom[-_ ]kill|out of memory|^MemoryError")
_SEEN = re.compile(r"exceeded memory limit \((\d+) > \d+\)")  # bytes, where SLURM polls memory itself
_EXIT = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.SIG\w+: (\d+)>")
_LAUNCH = re.compile(r"(?m)^srun: error: .*(Unable to (create step|confirm allocation)|Communication|timed out)")


@dataclass(frozen=True)
class Cause:
    """saved: no failure, it goes on from its state. passing: the same again may work. memory: more memory may.

    final: it would fail again until somebody acts.
    """

    kind: Literal["saved", "passing", "memory", "final"]
    text: str


def diagnose(
    attempts: list[Attempt], log: str, state: str, request: Request, overhead_mb: int, used_mb: float | None
) -> Cause:
    """The cause of a failure. log: the end of the job's own. state: SLURM's words (CANCELLED by 0), empty when unknown.

    used_mb: the most memory it was seen to use; the log may say it, too.
    """
    word = state.split()[0] if state else ""
    last = attempts[-1] if attempts else None
    place = f" on {last.node}" if last else ""
    status = _exit_status(log)
    if word == "OUT_OF_MEMORY" or _OUT_OF_MEMORY.search(log):
        seen = max([used_mb or 0.0, *(int(size) / 2**20 for size in _SEEN.findall(log))])
        used = f", seen to use {seen:.0f} MB" if seen else ""
        asked = request.memory_mb
        return Cause(
            "memory",
            f"out of memory{place}: asked {asked} MB (and {overhead_mb} MB for Snakemake itself){used}. Raise mem_mb.",
        )
    if word in ("NODE_FAIL", "BOOT_FAIL"):
        return Cause("passing", f"the node failed{place} ({word})")
    if word in ("PREEMPTED", "REVOKED"):
        return Cause("passing", f"preempted{place}, and not requeued")
    if word == "CANCELLED":
        who = state.removeprefix("CANCELLED").removeprefix(" by ").strip()
        return Cause("final", f"cancelled{f' by user {who}' if who else ''}{place}")
    if last is not None and last.how == "saved":
        return Cause("saved", f"its state saved{place}, but SLURM did not requeue it")
    if word == "TIMEOUT" or (last is not None and last.code == -1):
        return Cause(
            "final",
            f"time limit{place}: asked {request.minutes} min, and the script did not save and end on SIGUSR2. Raise "
            "runtime, or let the script save and exit on that signal.",
        )
    if last is None:
        return Cause("passing", f"never started ({state or 'unknown to SLURM'})")
    if last.how in ("", "stopped", "saved"):
        return Cause("passing", f"lost after its start{place} ({state or 'unknown to SLURM'})")
    if status == SAVED:
        return Cause("passing", f"interrupted{place}, its state saved (exit code {SAVED})")
    if status is not None and status > 128 and status - 128 in (2, 9, 15):
        return Cause("passing", f"killed{place} by signal {status - 128}")
    if _LAUNCH.search(log):
        return Cause("passing", f"SLURM could not start it{place}")
    return Cause("final", f"failed{place} with exit code {last.code if status is None else status}")


def _exit_status(log: str) -> int | None:
    """The script's status as the inner Snakemake reports it; 128 + n for signal n."""
    found = list(_EXIT.finditer(log))
    if not found:
        return None
    code, number = found[-1].groups()
    return int(code) if code else 128 + int(number)
