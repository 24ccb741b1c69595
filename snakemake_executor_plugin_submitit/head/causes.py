"""Why a job ended as it did, in one line, and whether sending it again can help."""

import re
from dataclasses import dataclass
from typing import Literal

from snakemake_executor_plugin_submitit.books.events import Attempt
from snakemake_executor_plugin_submitit.cluster.resources import Request
from snakemake_executor_plugin_submitit.cluster.slurm import Ending
from snakemake_executor_plugin_submitit.node.command import BEGINS

_NO_LOG = "0:53"  # as SLURM ends a job whose output it cannot open
SAVED = 75  # EX_TEMPFAIL: the script saved its state and asks to be run again
_OUT_OF_MEMORY = re.compile(r"(?im)exceeded memory limit|oom[-_ ]kill|out of memory|^MemoryError")
_GPU_MEMORY = re.compile(r"(?i)(?:CUDA|HIP)(?: error:)? out of memory")  # mem_mb is of the host's
_SEEN = re.compile(r"exceeded memory limit \((\d+) > \d+\)")  # bytes, where SLURM polls memory itself
_EXIT = re.compile(r"returned non-zero exit status (\d+)|died with <Signals\.SIG\w+: (\d+)>")
_NO_PROGRAM = re.compile(r"execve\(\): (.+?): (No such file or directory|Permission denied|Exec format error)")
_NO_MODULE = re.compile(r"No module named '?([\w.]+)'?")
# What the loader says, of Python itself or of a compiled package that it imports.
_NO_LIBRARY = re.compile(
    r"(?m)^.*(?:loading shared librar(?:y|ies)|cannot open shared object file|version `\S+' not found|"
    r"symbol lookup error|undefined symbol).*$"
)
_LAUNCH = re.compile(r"(?m)^srun: error: .*(Unable to (create step|confirm allocation)|Communication|timed out)")


@dataclass(frozen=True)
class Cause:
    """saved: no failure, it goes on from its state. passing: the same again may work. memory: more memory may.

    final: it would fail again until somebody acts. avoid: a node that is at fault; when the job is sent again, it keeps
    away from there.
    """

    kind: Literal["saved", "passing", "memory", "final"]
    text: str
    avoid: str = ""


def diagnose(
    attempts: list[Attempt],
    log: str,
    state: str,
    request: Request,
    overhead_mb: int,
    used_mb: float | None,
    ending: Ending | None = None,
) -> Cause:
    """The cause of a failure. log: the end of the job's own. state: SLURM's words (CANCELLED by 0), empty when unknown.

    used_mb: the most memory it was seen to use; the log may say it, too. ending: of a job without attempts.
    """
    word = state.split()[0] if state else ""
    log = log.rpartition(BEGINS)[2]  # of its last attempt
    last = attempts[-1] if attempts else None
    place = f" on {last.node}" if last else ""
    status = _exit_status(log)
    if word != "OUT_OF_MEMORY" and _GPU_MEMORY.search(log):
        return Cause("final", f"the GPU's memory did not suffice{place}: use a smaller batch_size, or a larger GPU")
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
    if last is not None and last.code == -1 and "too many times" in (last.last.why if last.last else ""):
        return Cause(
            "final",
            f"time limit{place}: asked {request.minutes} min, and was requeued as often as submitit-max-requeues "
            "allows. Raise runtime or that setting; it goes on from the state it saved.",
        )
    if word == "TIMEOUT" or (last is not None and last.code == -1):
        return Cause(
            "final",
            f"time limit{place}: asked {request.minutes} min, and the script did not save and end on SIGUSR2. Raise "
            "runtime, or let the script save and exit on that signal.",
        )
    if last is None:
        return _not_started(log, state, ending)
    if last.how in ("", "stopped", "saved"):
        return Cause("passing", f"lost after its start{place} ({state or 'unknown to SLURM'})")
    if status == SAVED and last.last is not None and last.last.asked:
        # It had saved, and was gone, before the node could tell that it had heard.
        return Cause("saved", f"its state saved{place}, but SLURM did not requeue it")
    if status == SAVED:
        return Cause("passing", f"interrupted{place}, its state saved (exit code {SAVED})")
    if status is not None and status > 128 and status - 128 in (2, 9, 15):
        return Cause("passing", f"killed{place} by signal {status - 128}")
    if _LAUNCH.search(log):
        return Cause("passing", f"SLURM could not start it{place}", avoid=last.node)
    return Cause("final", f"failed{place} with exit code {last.code if status is None else status}")


def _not_started(log: str, state: str, ending: Ending | None) -> Cause:
    """The cause of a failure before the first word of the job's own."""
    node, code = (ending.node, ending.code) if ending else ("", "")
    place = f" on {node}" if node else ""
    said = ", exit code ".join(filter(None, [state or "unknown to SLURM", code]))
    missing = _NO_PROGRAM.search(log)
    if missing:
        return Cause(
            "final",
            f"Python did not start{place} ({said}): {missing[1]}: {missing[2]}. Have it on a file system that the "
            "nodes mount, or say in submitit-python what starts it there.",
        )
    unloadable = _NO_LIBRARY.search(log)
    if unloadable:
        return Cause(
            "final",
            f"Python cannot run{place} ({said}): {unloadable[0].strip()[:300]}. The node's system is older than "
            "that it was made for, or lacks a library: load it in submitit-setup, or say in submitit-python what "
            "starts a Python that runs there.",
        )
    lacking = _NO_MODULE.search(log)
    if lacking:
        return Cause(
            "final",
            f"Python started{place} without our packages ({said}): no module {lacking[1]}. Start Snakemake with a "
            "Python that the nodes see too, or say in submitit-python what starts it there.",
        )
    if code == _NO_LOG:
        return Cause(
            "passing",
            f"never started{place} ({said}): the node could not open the job's log. It does not see this folder, or "
            "may not write to it",
            avoid=node,
        )
    return Cause("passing", f"never started{place} ({said})", avoid=node)


def _exit_status(log: str) -> int | None:
    """The script's status as the inner Snakemake reports it; 128 + n for signal n."""
    found = list(_EXIT.finditer(log))
    if not found:
        return None
    code, number = found[-1].groups()
    return int(code) if code else 128 + int(number)
