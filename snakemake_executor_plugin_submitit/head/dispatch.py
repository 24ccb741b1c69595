"""Sending: what is ready goes to the cluster, equal requests together, and again later where sbatch could not."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from snakemake_executor_plugin_submitit.books.records import Books, Member, Submission
from snakemake_executor_plugin_submitit.cluster.local import Local
from snakemake_executor_plugin_submitit.cluster.send import (
    UNNAMED,
    RefusedError,
    log_of,
    send_to_slurm,
    send_to_this_machine,
)
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import OVER, Rows, Slurm, is_alive, is_over
from snakemake_executor_plugin_submitit.head.task import Reporter, Task
from snakemake_executor_plugin_submitit.node.command import Command

_LONGEST_PAUSE_S = 3600.0
_FULL_S = 600.0  # the longest time between two tries at a limit on submitted jobs
_OF_NODES = re.compile(r"\bnodes?\b", re.IGNORECASE)  # in a refusal that other nodes may help against
_NAMED = 10  # jobs of an array that a line names
_LATEST_S = 600.0  # an sbatch that failed, or whose head died, may be under way for so long


@dataclass
class Full:
    """A limit on submitted jobs: with so many jobs there one more was refused, so many times in a row."""

    jobs: int
    tries: int
    again: float  # time, from which on one more is tried

    def room(self, there: int) -> int:
        """How many more may be sent, with so many jobs there."""
        return self.jobs - there if there < self.jobs else int(time.time() >= self.again)


class Dispatcher:
    """Holds the tasks that have no place on the cluster yet."""

    def __init__(
        self, books: Books, settings: ExecutorSettings, scope: str, cluster: Slurm | Local, reporter: Reporter
    ) -> None:
        self.books, self.settings, self.scope = books, settings, scope
        self.cluster, self.reporter = cluster, reporter
        self.waiting: list[Task] = []
        self.unsure: list[Submission] = []  # without an id, and may come to the queue all the same
        self.full: dict[tuple[str, str, str], Full] = {}  # by what limits are set for: account, QoS, partition
        self._told_of_limit = False

    def pause(self, tries: int) -> float:
        """Seconds to wait after so many failures in a row."""
        return float(min(self.settings.backoff * 2 ** min(tries - 1, 20), _LONGEST_PAUSE_S))  # a float ends at 2¹⁰²⁴

    def send(self, rows: Rows | None, active: list[Task], left: Sequence[Submission] = ()) -> list[Task]:
        """Send what is ready; the tasks that have a place now. rows: the queue, None when it is silent.

        left: live jobs of earlier heads that no task has taken over.
        """
        if rows is not None:
            self._cancel_the_unsure(rows)
        groups: dict[object, list[Task]] = {}
        for task in self.waiting:
            if self._is_ready(task, rows):
                groups.setdefault(task.request, []).append(task)
        sent: list[Task] = []
        for tasks in groups.values():
            if isinstance(self.cluster, Local):
                sent += self._start_here(self.cluster, tasks, [*(task.place for task in [*active, *sent]), *left])
                continue
            size = self.settings.max_array_size or self.cluster.max_array_size
            if size is None:
                break  # the controller is silent: later
            there = max(len(active), sum(row.state not in OVER for row in (rows or {}).values())) + len(sent)
            sent += self._submit_all(tasks, size, there)
        return sent

    def _submit_all(self, tasks: list[Task], size: int, there: int) -> list[Task]:
        """Submit jobs that ask for the same, as arrays of at most `size`, and as many as the site takes now.

        A limit on submitted jobs is not told beforehand: a refused array is halved, and a refused job ends it for now.
        there: this user's jobs on the cluster, as far as they are this executor's.
        """
        sent: list[Task] = []
        request = tasks[0].request
        key = (request.account, request.qos, request.partition)
        most = size
        while ahead := tasks[len(sent) :]:
            full = self.full.get(key)
            most = min(most, len(ahead), full.room(there + len(sent)) if full else len(ahead))
            if most < 1:
                break
            error = self._submit(ahead[:most], there + len(sent))
            if error is None:
                sent += ahead[:most]
                if full and there + len(sent) > full.jobs:  # it has risen, or others have left
                    del self.full[key]
                    most = size
            elif not error.limit:
                break  # all would be told the same
            elif most > 1:
                most //= 2
            else:
                self._fill(key, there + len(sent), error)
                break
        return sent

    def _fill(self, key: tuple[str, str, str], there: int, error: RefusedError) -> None:
        tries = self.full[key].tries + 1 if key in self.full else 1
        pause = min(self.pause(tries), _FULL_S)
        self.full[key] = Full(there, tries, time.time() + pause)
        if not self._told_of_limit:
            self._told_of_limit = True
            self.reporter.say(
                f"the site's limit on submitted jobs is reached ({error.limit}), with {there} of this folder's jobs "
                "there. The others follow as jobs end"
            )

    def _is_ready(self, task: Task, rows: Rows | None) -> bool:
        if task.waits_for and rows is not None:
            task.waits_for = {
                (job, name)
                for job, name in task.waits_for
                if is_alive(rows, job, name) or not is_over(self.cluster.known(job, name))
            }
            self.cluster.cancel({job for job, _ in task.waits_for})  # the first order may have been lost
        if (
            task.unsure
            and rows is not None
            and not any(row.name == task.unsure and row.state not in OVER for row in rows.values())
        ):
            task.unsure = ""  # it was not heard, or is cancelled
        return not task.waits_for and not task.unsure and task.not_before <= time.time()

    def _submit(self, tasks: list[Task], there: int) -> RefusedError | None:
        """Submit one array; why not, if it is not sent. there: this user's jobs on the cluster, as far as ours."""
        submission = self._enter(tasks)
        if submission is None:
            return RefusedError("the books cannot be written")
        try:
            submission.job_id = send_to_slurm(
                submission, self._commands(submission, tasks), tasks[0].request, self.settings
            )
        except RefusedError as error:
            if error.limit == UNNAMED and len(tasks) == 1 and not there:  # then it is not one on the number of jobs
                error.limit, error.later = "", False
            self._refused(submission, tasks, error)
            return error
        self._settle(submission, tasks)
        what = f"array {submission.job_id} of {len(tasks)} jobs" if len(tasks) > 1 else f"job {submission.job_id}"
        self.reporter.say(f"{what} submitted ({_listed(tasks)}), logs in {submission.folder}")
        return None

    def _start_here(self, local: Local, tasks: list[Task], there: list[Submission]) -> list[Task]:
        """Start what this machine has processors and GPUs for; the rest waits for its turn."""
        started: list[Task] = []
        for task in tasks:
            taken = [*there, *(one.place for one in started)]
            free = sorted(set(local.gpus) - {gpu for one in taken for gpu in one.extra.gpus})
            wanted = min(task.request.gpus, len(local.gpus))
            cpus = sum(one.request["cpus"] for one in taken) + task.request.cpus
            if len(free) < wanted or (taken and cpus > local.cpus):
                continue
            submission = self._enter([task])
            if submission is None:
                break
            submission.extra.gpus = free[:wanted]
            command = self._commands(submission, [task])[0]
            try:
                submission.job_id = send_to_this_machine(
                    local, submission, command, free[:wanted], task.request.minutes, self.settings
                )
            except OSError as error:  # a full disk, or no more processes
                self.books.discard(submission)
                self._put_off([task], error)
                break
            self._settle(submission, [task])
            started.append(task)
        return started

    def _enter(self, tasks: list[Task]) -> Submission | None:
        """Into the books, before anything is sent; None, and a later try, where the books cannot be written."""
        members = [Member(key=task.key, rule=task.name, outputs=task.outputs, attempt=task.attempt) for task in tasks]
        try:
            return self.books.open(self.scope, tasks[0].request.asdict(), members)
        except OSError as error:
            self._put_off(tasks, error)
            return None

    def _put_off(self, tasks: list[Task], error: OSError) -> None:
        """To a later try: this machine could not do its part."""
        self.books.trouble = str(error)
        for task in tasks:
            task.not_before = time.time() + self.pause(1)

    def _commands(self, submission: Submission, tasks: list[Task]) -> list[Command]:
        folder = str(Path.cwd())
        for note in {task.sources for task in tasks if task.sources}:
            self.books.use(submission, note)
        return [
            Command(task.command, folder, str(submission.events(index).absolute()), task.request.minutes, task.sources)
            for index, task in enumerate(tasks)
        ]

    def _settle(self, submission: Submission, tasks: list[Task]) -> None:
        for index, task in enumerate(tasks):
            task.settle(submission, index)
            task.member.log = log_of(submission, index)
            self.waiting.remove(task)
        self.books.save(submission)
        for task in tasks:
            self.reporter.submitted(task)

    def _refused(self, submission: Submission, tasks: list[Task], error: RefusedError) -> None:
        """sbatch failed. It may have been heard: whatever carries the name is cancelled, now or when SLURM answers."""
        if error.limit:  # the controller's own word: nothing of it is there
            self.books.discard(submission)
            return
        avoided = sorted({node for task in tasks for node in task.avoided}) if _OF_NODES.search(str(error)) else []
        for member in submission.members:
            again = error.later or avoided
            member.state = "cancelled" if again else "failed"
            member.cause = f"not submitted: {error}" if again else f"sbatch refused it: {error}"
        self.books.save(submission)
        self.unsure.append(submission)
        if avoided and not error.later:  # there may be no other nodes than those
            self.reporter.say(
                f"sbatch has no nodes for {_listed(tasks)} but {', '.join(avoided)}, where it did not start ({error}). "
                f"Sending it again, to these, too, in {self.pause(tasks[0].attempt):.0f} s"
            )
            for task in tasks:
                task.request, task.avoided = task.request.with_nodes(task.avoided), ()
                task.not_before = time.time() + self.pause(task.attempt)
            return
        for task in tasks:
            task.refusals += 1
            if not error.later:
                self.waiting.remove(task)
                self.reporter.failed(task, f"sbatch refused it: {error}", None, "")
            else:
                task.not_before = time.time() + self.pause(task.refusals)
                task.unsure = submission.name
        if error.later:
            self.reporter.say(f"sbatch failed ({error}); trying again in {self.pause(tasks[0].refusals):.0f} s")

    def _cancel_the_unsure(self, rows: Rows) -> None:
        for submission in self.unsure:
            self.cluster.cancel(job for job, row in rows.items() if is_alive(rows, job, submission.name))
        self.unsure = [one for one in self.unsure if time.time() - one.submitted < _LATEST_S]


def _listed(tasks: list[Task]) -> str:
    """What these are for, in a line."""
    titles = [task.title for task in tasks]
    more = len(titles) - _NAMED
    return ", ".join([*titles[:_NAMED], *([f"and {more} more"] if more > 0 else [])])
