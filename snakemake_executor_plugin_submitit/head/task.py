"""A job that this head takes care of, from the moment Snakemake gives it until its end is reported, and to whom."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from snakemake.resources import GroupResources, Resources
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.books.events import Attempt, read_attempts
from snakemake_executor_plugin_submitit.books.records import Member, Submission
from snakemake_executor_plugin_submitit.cluster.resources import Request

_LOG_END = 20_000  # bytes of a log that are looked at
_OF_EACH = ("mem_mb_per_cpu", "nodes", "tasks", "tasks_per_node", "tasks_per_gpu")


def members_of(job: Any) -> list[Any]:
    """The single jobs of Snakemake's job or group."""
    return list(job.jobs) if job.is_group() else [job]


def outputs_of(job: Any) -> list[str]:
    """Paths a job or group writes, sorted."""
    return sorted(str(path) for single in members_of(job) for path in single.output)


def label_of(job: Any) -> str:
    """Rule of a job, or the rules of a group, and the wildcards that say what it is for."""
    wildcards: dict[str, list[str]] = {}
    for single in members_of(job):
        for name, value in single.wildcards_dict.items():
            wildcards.setdefault(name, []).append(str(value))
    one = [f"{name}={values[0]}" for name, values in wildcards.items() if len(set(values)) == 1]
    return " ".join([name_of(job), *one])


def name_of(job: Any) -> str:
    """Rule of a job; the rules of a group, joined."""
    return "+".join(sorted({single.rule.name for single in members_of(job)}))


def resources_of(job: Any, jobs_per_gpu: int = 1) -> Any:
    """What a job or group asks for. The jobs of a group share the GPUs of the one that asks for most.

    They take turns on these, or `jobs_per_gpu` of them run side by side on each; memory and processors are then for
    as many.

    By itself Snakemake adds up the GPUs of jobs that are ready together, but where `--resources gpu=1` limits them, and
    that limit would cut what single jobs ask for, too, without a word.
    """
    if not job.is_group():
        return job.resources
    in_gres = [str(gres) for single in job.jobs if "gpu" in str(gres := single.resources.get("gres", ""))]
    if len(in_gres) > 1:
        raise WorkflowError(
            f"group {name_of(job)}: expected gpu, the number of GPUs, found gres={in_gres[0]!r}: jobs of a group take "
            "turns on GPUs by that number. Say gpu (and gpu_model). Nothing was submitted."
        )
    gpus = max(_numbers(job, "gpu"), default=0)
    found = GroupResources.basic_layered(
        toposorted_jobs=job.toposorted,
        constraints=Resources.from_mapping({"gpu": max(1, gpus) * jobs_per_gpu}),
        run_local=False,
        additive_resources=["runtime"],
        sortby=["runtime"],
    )
    # Not the sums over those that run side by side.
    found |= {name: max(values) for name in _OF_EACH if (values := _numbers(job, name))}
    return found | {"gpu": gpus} if gpus else found


def _numbers(job: Any, name: str) -> list[int]:
    """What the jobs of a group say of a resource, where it is a number; others are refused later."""
    return [number for single in job.jobs if isinstance(number := single.resources.get(name), int)]


@dataclass(eq=False)
class Task:
    """Snakemake's job, what identifies it, what runs it, and its place in the books once it is there."""

    job: Any
    key: str
    name: str
    outputs: list[str]
    command: str
    request: Request
    label: str = ""  # the rule and what it is for: train run=a
    sources: str = ""  # the note of what its code was when it was planned
    may_restart: bool = False  # Snakemake would make another attempt of it: the rule's `retries`
    attempt: int = 1
    refusals: int = 0
    avoided: tuple[str, ...] = ()  # nodes that it is kept away from, as it did not start there
    turns: int = 0  # it saved, was not requeued, and was sent again so many times
    not_before: float = 0.0
    waits_for: set[tuple[str, str]] = field(default_factory=set)  # id and name of jobs to be gone first
    unsure: str = ""  # the name of its last submission, where sbatch failed: it may have been heard
    submission: Submission | None = None
    index: int = 0
    gone_since: float | None = None
    done_since: float | None = None
    started: bool = False  # as far as the user knows
    attempts_told: int = 0
    told: str = ""  # the reason for which it is stuck, as far as the user knows
    history: list[tuple[Submission, int]] = field(default_factory=list)
    _stamp: tuple[int, int] = (-1, -1)
    _attempts: list[Attempt] = field(default_factory=list)

    @property
    def place(self) -> Submission:
        """Its submission. Only for a task that has one."""
        assert self.submission is not None
        return self.submission

    @property
    def title(self) -> str:
        """As the user is told of it."""
        return self.label or self.name

    @property
    def id(self) -> str:
        """The cluster's id of it."""
        return self.place.element(self.index)

    @property
    def sent(self) -> Request:
        """What its job asked for, which an earlier head may have sent."""
        there = self.place.request
        return replace(self.request, memory_mb=there["memory_mb"], minutes=there["minutes"])

    @property
    def member(self) -> Member:
        """Its line in the books."""
        return self.place.members[self.index]

    def settle(self, submission: Submission, index: int) -> None:
        """Take a place in the books."""
        self.submission, self.index, self.gone_since = submission, index, None
        self._stamp, self._attempts = (-1, -1), []
        self.started, self.attempts_told = False, 0
        self.history.append((submission, index))

    def attempts(self) -> list[Attempt]:
        """What the nodes said of it; read again when there is more.

        The file is opened for that: what a network file system tells of one that is not may be a minute old.
        """
        path = self.place.events(self.index)
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                stamp = (found.st_size, found.st_mtime_ns)
                if stamp != self._stamp:
                    self._stamp, self._attempts = stamp, read_attempts(path)
        except OSError:
            return []
        return self._attempts

    def verdict(self) -> int | None:
        """Exit code of its last attempt; None while there is none."""
        attempts = self.attempts()
        return attempts[-1].code if attempts else None

    def log_end(self, path: Path) -> str:
        """The end of a log; empty when there is none."""
        try:
            with path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - _LOG_END))
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def ids_of(tasks: Iterable[Task], *, brackets: bool = True) -> list[str]:
    """The tasks' ids as scontrol and scancel take them, and no other job's.

    An array's own id stands for its tasks where these are all of it that is open. brackets: several elements of an
    array as '7_[0-2,5]', quoted for a shell, else one by one.
    """
    places: dict[str, list[Task]] = {}
    for task in tasks:
        places.setdefault(task.place.name, []).append(task)
    found = []
    for some in places.values():
        place, indices = some[0].place, sorted(task.index for task in some)
        is_open = [index for index, member in enumerate(place.members) if member.state == "open"]
        if len(place.members) == 1 or set(is_open) <= set(indices):
            found.append(str(place.job_id))
        elif brackets and len(indices) > 1:
            found.append(f"'{place.job_id}_[{_ranges(indices)}]'")
        else:
            found += [place.element(index) for index in indices]
    return sorted(found)


def _ranges(numbers: list[int]) -> str:
    """Sorted numbers as 0-3,7."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][-1] + 1:
            found[-1] = [found[-1][0], number]
        else:
            found.append([number])
    return ",".join("-".join(map(str, one)) for one in found)


class Reporter(Protocol):
    """Who is told what becomes of the tasks: Snakemake's side, as the follower needs it."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def makes(self, outputs: list[str]) -> bool:
        """Whether the workflow, as it is now configured, could make these files."""

    def submitted(self, task: Task) -> None:
        """A job has a place on the cluster."""

    def succeeded(self, task: Task, seconds: float) -> None:
        """A job is done, and its last attempt took so long."""

    def failed(self, task: Task, text: str, log: Path | None, end: str) -> None:
        """A job has failed for good. end: the last of its log."""
