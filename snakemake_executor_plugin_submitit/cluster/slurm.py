"""What is asked of SLURM, and how its answers are read. None: there was no answer that makes sense; ask again later."""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from snakemake_executor_plugin_submitit.cluster.environment import for_slurm

# States of the past that SLURM often follows with a requeue.
PASSING = frozenset(["NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"])
# States in which SLURM no longer owns a job. Every other is alive: a newer SLURM may have words unknown here.
OVER = PASSING | {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "OUT_OF_MEMORY", "DEADLINE", "LAUNCH_FAILED"}
OWN = "smk-"  # how the names of this executor's jobs begin
# Names, lists of names and expressions that SLURM takes; nothing that a shell, an sbatch header or a list of options
# could read otherwise.
_NAME = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.,:@+=&|*()\[\]-]*")
NAME_RULE = "letters, digits and _ . , : @ + = & | * ( ) [ ] - only, and a letter, a digit, _ ( or [ first"
_QUEUE_HEADER, _QUEUE_FORMAT = "JOBID|STATE|NAME|REASON", "%i|%T|%j|%r"
_NO_JOB = re.compile(r"Invalid job id|Job \d+(?:_\d+)? not found")  # the latter of an element that was purged
_OWN_ROW = re.compile(rf"(\d+(?:_\d+)?)\|(\w+)\|({OWN}[^|]*)\|(.*)")
_PAST_FIELDS = "JobID|State"
_COST_FIELDS = "JobID|State|Start|ElapsedRaw|TotalCPU|MaxRSS|AllocTRES"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Answer:
    """What a command said. code 127: there is none of that name; 124: it did not answer in time."""

    code: int
    out: str
    error: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def why(self) -> str:
        """Its complaint, in a line."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        return "; ".join(lines[-3:])[:300] or f"exit code {self.code}"


def ask(*command: str, timeout_s: float = _TIMEOUT_S) -> Answer:
    """Run a command in a clean environment (see `environment`). SLURM's commands give times as seconds since 1970."""
    environment = {**for_slurm(), "SLURM_TIME_FORMAT": "%s"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {timeout_s:.0f} s")
    except OSError as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)


def ask_config() -> tuple[Answer, dict[str, str]]:
    """The controller's settings, name → value; empty where the answer makes no sense."""
    answer = ask("scontrol", "show", "config")
    pairs = (line.split("=", 1) for line in answer.out.splitlines() if "=" in line)
    found = {key.strip(): value.strip() for key, value in pairs}
    return answer, found if answer.ok and found.get("MaxArraySize", "").isdigit() else {}


def largest_array(config: Mapping[str, str]) -> int:
    """Jobs that one array may have. Below 1 where there are no arrays.

    Indices stay below the site's MaxArraySize; how many there are, a parameter of the scheduler may limit further.
    """
    most = re.search(r"\bmax_array_tasks=(\d+)", config.get("SchedulerParameters", ""))
    indices = int(config["MaxArraySize"]) - 1
    return min(indices, int(most[1])) if most else indices


def has_accounting(config: Mapping[str, str]) -> bool:
    """Whether there is a database to ask."""
    kind = config.get("AccountingStorageType", "")
    return kind not in ("", "(null)", "none", "N/A") and not kind.endswith("/none")


def is_name(text: str) -> bool:
    """Whether a text is safe as a name, a list of names or an expression for SLURM: see NAME_RULE."""
    return bool(_NAME.fullmatch(text))


class Row(NamedTuple):
    """A job as the queue shows it."""

    state: str
    name: str
    reason: str


Rows = dict[str, Row]  # by id


def is_alive(rows: Rows, job: str, name: str) -> bool:
    """Whether the queue has this job under this name: ids recur on a cluster that was set up again."""
    return job in rows and rows[job].name == name and rows[job].state not in OVER


def is_over(known: str | None) -> bool:
    """Whether the controller's word on one job (see `Slurm.known`) is that it has ended. Its silence is no word."""
    return known == "gone" or known in OVER


class Past(NamedTuple):
    """A job as the accounting remembers it. `words` is the whole state: CANCELLED by 1000."""

    state: str
    words: str


class Ending(NamedTuple):
    """How a job ended. code: SLURM's exit code and signal, such as 0:53. node: where; empty when it had none."""

    code: str
    node: str


class Cost(NamedTuple):
    """What one attempt of a job used, by the accounting. None: unavailable."""

    state: str
    started: float
    elapsed_s: float
    cpu_s: float
    gpus: int | None
    max_rss_mb: float | None


class Slurm:
    """The questions asked of SLURM."""

    def __init__(self) -> None:
        self._config: dict[str, str] = {}

    def queue(self) -> Rows | None:
        """This executor's jobs of this user that the controller remembers, array elements one by one; one squeue call.

        A row is not always a line: other jobs may have any name, one with a line's end too. They are passed over.
        """
        answer = ask("squeue", "-r", "-t", "all", "-u", str(os.getuid()), "-o", _QUEUE_FORMAT)
        lines = [line.strip() for line in answer.out.splitlines() if not line.startswith("CLUSTER:")]
        if not answer.ok or not lines or lines[0] != _QUEUE_HEADER:
            return None
        return {found[1]: Row(*found.groups()[1:]) for line in lines if (found := _OWN_ROW.fullmatch(line))}

    def past(self, ids: Sequence[str]) -> dict[str, Past] | None:
        """What the accounting says of these jobs."""
        fields = _PAST_FIELDS.replace("|", ",")
        lines = _table(ask("sacct", "-X", "-P", "-o", fields, "-j", ",".join(ids)), _PAST_FIELDS) if ids else []
        if lines is None:
            return None
        found = {}
        for line in lines:
            job, words = line.split("|")
            found[job] = Past(words.split()[0].rstrip("+"), words)
        return {job: past for job, past in found.items() if job in ids}

    def costs(self, job: str) -> list[Cost] | None:
        """What each attempt of a job used, requeued ones apart, in the order of time; None without accounting."""
        answer = ask("sacct", "-D", "-P", "-o", _COST_FIELDS.replace("|", ","), "-j", job)
        lines = _table(answer, _COST_FIELDS)
        if lines is None:
            return None
        attempts: list[Cost] = []
        for line in lines:
            step, words, start, elapsed, cpu, memory, resources = line.split("|")
            if step == job:
                gpus = _gpus(resources)
                started = float(start) if start.isdigit() else 0.0
                attempts.append(Cost(words.split()[0], started, float(elapsed or 0), _seconds(cpu), gpus, None))
            elif attempts and step.startswith(f"{job}.") and (peak := _megabytes(memory)) is not None:
                attempts[-1] = attempts[-1]._replace(max_rss_mb=max(peak, attempts[-1].max_rss_mb or 0.0))
        return attempts

    def known(self, job: str, name: str) -> str | None:
        """The controller's own word on one job: its state, `gone` when it knows no such job of this name."""
        answer = ask("scontrol", "-o", "show", "job", job)
        if not answer.ok and _NO_JOB.search(answer.error + answer.out):
            return "gone"
        state, found = (re.search(rf"\b{field}=(\S+)", answer.out) for field in ("JobState", "JobName"))
        if not answer.ok or state is None or found is None:
            return None
        return state[1] if found[1] == name else "gone"

    def ending(self, job: str) -> Ending | None:
        """How a job ended, while the controller remembers it."""
        answer = ask("scontrol", "-o", "show", "job", job)
        code = re.search(r"\bExitCode=(\d+:\d+)", answer.out)
        node = re.search(r"\b(?:BatchHost|NodeList)=([\w.-]+)", answer.out)
        return Ending(code[1], node[1] if node else "") if answer.ok and code else None

    def cancel(self, ids: Iterable[str]) -> bool:
        """Cancel jobs; whether SLURM took the order."""
        wanted = sorted(ids)
        return not wanted or ask("scancel", *wanted).ok

    def order(self, ids: Iterable[str], names: Iterable[str]) -> str:
        """The command with which a person cancels these."""
        words = [" ".join(["scancel", *sorted(ids)])] if ids else []
        return "; ".join([*words, *(f"scancel --name={name}" for name in sorted(names))])

    @property
    def accounting(self) -> bool | None:
        """Whether there is a database to ask."""
        config = self._settings()
        return has_accounting(config) if config else None

    @property
    def max_array_size(self) -> int | None:
        """Jobs that one array may have, at least 1."""
        config = self._settings()
        return max(1, largest_array(config)) if config else None

    def _settings(self) -> dict[str, str]:
        """The controller's settings, asked for until there is an answer; empty while there is none."""
        self._config = self._config or ask_config()[1]
        return self._config


def _table(answer: Answer, header: str) -> list[str] | None:
    """The lines below a header; None when the answer is not such a table."""
    lines = answer.out.splitlines()
    return lines[1:] if answer.ok and lines and lines[0].strip() == header else None


def _gpus(resources: str) -> int | None:
    """How many a list of allocated resources has; None where it has none: not every site counts them."""
    found = re.search(r"gres/gpu=(\d+)", resources)
    typed = re.findall(r"gres/gpu:[^=,]+=(\d+)", resources)
    return int(found[1]) if found else sum(map(int, typed)) if typed else None


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
