"""What is asked of SLURM, and how its answers are read. None: there was no answer that makes sense; ask again later."""

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# States in which SLURM still owns a job.
ALIVE = frozenset(
    [
        *("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SUSPENDED"),
        *("STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT", "SPECIAL_EXIT"),
    ]
)
# States of the past that SLURM often follows with a requeue.
PASSING = frozenset(["NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"])
OVER = PASSING | {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "LAUNCH_FAILED"}
_QUEUE_HEADER, _QUEUE_FORMAT = "JOBID|STATE|NODELIST|NAME|REASON", "%i|%T|%N|%j|%r"
_PAST_FIELDS = "JobID|State|ExitCode|NodeList"
_COST_FIELDS = "JobID|State|Start|ElapsedRaw|TotalCPU|MaxRSS|AllocTRES|NodeList"
_TIMEOUT_S = 30


class Row(NamedTuple):
    """A job as the queue shows it."""

    state: str
    node: str
    name: str
    reason: str


Rows = dict[str, Row]  # by id


def is_alive(rows: Rows, job: str, name: str) -> bool:
    """Whether the queue has this job under this name: ids recur on a cluster that was set up anew."""
    return job in rows and rows[job].name == name and rows[job].state in ALIVE


class Past(NamedTuple):
    """A job as the accounting remembers it. `words` is the whole state: CANCELLED by 1000."""

    state: str
    words: str
    node: str


class Cost(NamedTuple):
    """What one attempt of a job used, by the accounting. None: unavailable."""

    state: str
    started: float
    elapsed_s: float
    cpu_s: float
    gpus: int
    max_rss_mb: float | None
    node: str


class Slurm:
    """The questions asked of SLURM."""

    def __init__(self) -> None:
        self._settings: dict[str, str] | None = None

    def queue(self) -> Rows | None:
        """All of this user's jobs that the controller remembers, array elements one by one; one squeue call."""
        answer = _ask("squeue", "-r", "-t", "all", "-u", str(os.getuid()), "-o", _QUEUE_FORMAT)
        if answer is None or not answer or answer[0].strip() != _QUEUE_HEADER:
            return None
        rows = {}
        for line in answer[1:]:
            parts = line.strip().split("|", 4)
            if len(parts) != 5 or parts[1] not in ALIVE | OVER:
                return None
            rows[parts[0]] = Row(*parts[1:])
        return rows

    def past(self, ids: Sequence[str]) -> dict[str, Past] | None:
        """What the accounting says of these jobs."""
        fields = _PAST_FIELDS.replace("|", ",")
        answer = _ask("sacct", "-X", "-P", "-o", fields, "-j", ",".join(ids)) if ids else [_PAST_FIELDS]
        if answer is None or not answer or answer[0].strip() != _PAST_FIELDS:
            return None
        found = {}
        for line in answer[1:]:
            job, words, _, node = line.split("|")
            found[job] = Past(words.split()[0].rstrip("+"), words, node)
        return {job: past for job, past in found.items() if job in ids}

    def costs(self, job: str) -> list[Cost] | None:
        """What each attempt of a job used, requeued ones apart, in the order of time; None without accounting."""
        answer = _ask("sacct", "-D", "-P", "-o", _COST_FIELDS.replace("|", ","), "-j", job)
        if answer is None or not answer or answer[0].strip() != _COST_FIELDS:
            return None
        attempts: list[Cost] = []
        for line in answer[1:]:
            step, words, start, elapsed, cpu, memory, resources, node = line.split("|")
            if step == job:
                found = re.search(r"gres/gpu=(\d+)", resources)
                gpus = int(found.group(1)) if found else 0
                started = float(start) if start.isdigit() else 0.0
                attempts.append(Cost(words.split()[0], started, float(elapsed or 0), _seconds(cpu), gpus, None, node))
            elif attempts and step.startswith(f"{job}.") and (peak := _megabytes(memory)) is not None:
                attempts[-1] = attempts[-1]._replace(max_rss_mb=max(peak, attempts[-1].max_rss_mb or 0.0))
        return attempts

    def known(self, job: str) -> str | None:
        """The controller's own word on one job: its state, `gone` when it knows no such job."""
        code, out, error = _run("scontrol", "-o", "show", "job", job)
        if code and "Invalid job id" in error:
            return "gone"
        state = re.search(r"\bJobState=(\w+)", out)
        return state.group(1) if state and not code else None

    def cancel(self, ids: Iterable[str]) -> bool:
        """Cancel jobs; whether SLURM took the order."""
        wanted = sorted(ids)
        return not wanted or _run("scancel", *wanted)[0] == 0

    @property
    def accounting(self) -> bool | None:
        """Whether there is a database to ask."""
        kind = self._setting("AccountingStorageType")
        return None if kind is None else not kind.endswith("/none") and kind != "(null)"

    @property
    def max_array_size(self) -> int | None:
        """Jobs that one array may have: indices stay below the site's MaxArraySize."""
        size = self._setting("MaxArraySize")
        return None if size is None else max(1, int(size) - 1)

    def _setting(self, name: str) -> str | None:
        if self._settings is None:
            code, out, _ = _run("scontrol", "show", "config")
            pairs = (line.split("=", 1) for line in out.splitlines() if "=" in line)
            found = {key.strip(): value.strip() for key, value in pairs}
            if code or "MaxArraySize" not in found:
                return None
            self._settings = found
        return self._settings.get(name, "(null)")


def _ask(*command: str) -> list[str] | None:
    code, out, _ = _run(*command)
    return None if code else out.splitlines()


def _run(*command: str) -> tuple[int, str, str]:
    try:
        environment = os.environ | {"SLURM_TIME_FORMAT": "%s"}  # times of sacct as seconds
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 255, "", str(error)
    return done.returncode, done.stdout, done.stderr


def _seconds(text: str) -> float:
    """sacct's [DD-[HH:]]MM:SS[.mmm]."""
    days, _, clock = text.rpartition("-")
    total = 0.0
    for part in clock.split(":"):
        total = 60 * total + float(part or 0)
    return 86400 * int(days or 0) + total


def _megabytes(text: str) -> float | None:
    """sacct's 123456K."""
    found = re.fullmatch(r"([\d.]+)([KMGT]?)", text.strip())
    if not found:
        return None
    return float(found.group(1)) * {"": 1e-6, "K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2}[found.group(2)]
