"""What becomes of the jobs: adopted or sent, followed, sent again, reported. One look at a time, on one thread."""

import time
from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path

from snakemake_executor_plugin_submitit.books.costs import AttemptCost, goal, hand_over, write_costs
from snakemake_executor_plugin_submitit.books.records import Books, State, Submission
from snakemake_executor_plugin_submitit.cluster.accounting import costs_of
from snakemake_executor_plugin_submitit.cluster.local import Local
from snakemake_executor_plugin_submitit.cluster.reasons import Stuck, stuck_for
from snakemake_executor_plugin_submitit.cluster.send import log_of
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import OVER, PASSING, Row, Rows, Slurm, is_alive, is_over
from snakemake_executor_plugin_submitit.head.adopt import Former, Histories, classify
from snakemake_executor_plugin_submitit.head.causes import Cause, diagnose
from snakemake_executor_plugin_submitit.head.dispatch import Dispatcher
from snakemake_executor_plugin_submitit.head.task import Reporter, Task, ids_of

BORN = time.time()  # Snakemake imports its plugins before it decides what has to run
_LINES = 30  # jobs of which a line each is printed at the end
_SOON_S = 10.0  # a job that SLURM calls over may take so long until its last words are on this file system
_ACCOUNTED_S = 30.0  # the accounting may take so long to know of a job's end, where its costs go into its results
_UNDER_WAY = ("RUNNING", "COMPLETING")
_PATIENCE = 10  # times lost_after, until a job counts as lost though the accounting does not answer


class Follower:
    """Takes care of tasks on a cluster, and keeps the books."""

    def __init__(self, books: Books, settings: ExecutorSettings, scope: str, reporter: Reporter) -> None:
        self.books, self.settings, self.scope, self.reporter = books, settings, scope, reporter
        gpus = [gpu for gpu in settings.local_gpus.split(",") if gpu]
        self.cluster: Slurm | Local = Slurm() if settings.cluster == "slurm" else Local(books.root, gpus)
        self.deciding: list[Task] = []  # may be adopted
        self.active: list[Task] = []
        self.dispatcher = Dispatcher(books, settings, scope, self.cluster, reporter)
        submissions, unreadable = books.read()
        for text in unreadable:
            reporter.say(f"record not read: {text}")
        self.unreadable = books.unreadable_names() if unreadable else set()
        self.histories = Histories(submissions)
        self.former = [
            Former(submission, index)
            for submission in submissions
            for index, member in enumerate(submission.members)
            if member.state == "open"
        ]
        self.silent_since: float | None = None
        self.trouble = ""  # with the books, as far as the user knows
        self.told_of: set[tuple[str, str]] = set()  # jobs whose record cannot be read
        books.prune(settings.keep_days)

    def finished_alone(self, needed: Collection[str]) -> Iterable[tuple[Submission, int]]:
        """Jobs of former heads that ended well while no head was there; they are closed by this call.

        needed: files that Snakemake has decided to make. Whose job ended since then is left to be taken over.
        """
        for former in list(self.former):
            left = former.ended_since(BORN) and not set(needed).isdisjoint(former.member.outputs)
            if former.ended_well and former.submission.job_id is not None and not left:
                history = self.histories.until(former.submission, former.index)
                self._tell_costs(former.member.rule, former.member.outputs, costs_of(history, self.cluster))
                self._close(former.submission, former.index, "done")
                self.former.remove(former)
                yield former.submission, former.index

    def look(self, new: list[Task]) -> None:
        """One round."""
        self.deciding += new
        self._note_trouble()
        if not (self.deciding or self.active or self.dispatcher.waiting or self.dispatcher.unsure):
            return
        # One question to the queue serves the whole round. It may be silent: then nothing is decided by absence.
        rows = self.cluster.queue()
        self._note_silence(rows)
        # New tasks: take over an earlier head's job, or line up to be sent. That needs the queue's word.
        if rows is not None and (told := self._with_hidden(rows)) is not None:
            self._decide(told)
        # Send what is ready, old failures too whose pause is over.
        left = [former.submission for former in self.former if rows is not None and former.is_alive(rows)]
        self.active += self.dispatcher.send(rows, self.active, left)
        # See what became of each job that has a place.
        for task in list(self.active):
            self._follow(task, rows)
        self._tell_of_stuck(rows)

    def _with_hidden(self, rows: Rows) -> Rows | None:
        """The queue, and what it does not show of earlier heads' open jobs though the controller knows them.

        A job that is taken for dead is sent again: two would write the same files. None: the controller is silent.
        """
        found = dict(rows)
        for former in self.former:
            if former.submission.job_id is None or former.is_gone or former.is_alive(rows):
                continue
            word = self.cluster.known(former.id, former.submission.name)
            if word is None:
                return None
            former.is_gone = is_over(word)
            if not former.is_gone:
                found[former.id] = Row(word, former.submission.name, "")
        return found

    def _decide(self, rows: Rows) -> None:
        """Adopt what an earlier head left alive, cancel what is out of date, and queue the rest for sending."""
        alive = {job: row.name for job, row in rows.items() if row.state not in OVER}
        nameless = {(job, name) for job, name in alive.items() if name in self.unreadable}
        for job, name in sorted(nameless - self.told_of):
            self.reporter.say(f"cancelling job {job} of an earlier run: its record {name} cannot be read")
        self.told_of |= nameless
        if nameless:
            self.cluster.cancel({job for job, _ in nameless})
        # Earlier jobs of this scope that the plan no longer has are cancelled, whatever the new tasks are.
        for former in list(self.former):
            if former.find(rows):
                self.books.save(former.submission)
            if former.submission.scope == self.scope and not self.reporter.makes(former.member.outputs):
                self._outdate(former, rows, "no longer in the plan")
        for task in self.deciding:
            adopted, outdated = classify(task, self.former, rows, BORN)
            task.waits_for |= nameless
            # Two jobs must never write the same files: the task waits until those that are out of date are gone.
            for former in outdated:
                if self._outdate(former, rows, "out of date"):
                    task.waits_for.add((former.id, former.submission.name))
            task.history = self.histories.before(task.key, task.outputs)
            if adopted is not None:
                self._adopt(task, adopted)
            else:
                self.dispatcher.waiting.append(task)
        self.deciding = []

    def _adopt(self, task: Task, former: Former) -> None:
        """Give a task the place that an earlier head's job has in the books."""
        self.former.remove(former)
        task.history = self.histories.until(former.submission, former.index)[:-1]
        task.settle(former.submission, former.index)
        task.attempt = former.member.attempt
        self.reporter.say(f"adopted job {former.id} of an earlier run ({task.name} {' '.join(task.outputs)})")
        self.active.append(task)
        self.reporter.submitted(task)

    def _outdate(self, former: Former, rows: Rows, why: str) -> bool:
        """Cancel and close an earlier head's job; whether it was alive."""
        alive = former.is_alive(rows)
        if not alive and former.is_passing(rows):
            self.cluster.cancel([former.id])  # SLURM may be about to requeue it
        if alive:
            self.reporter.say(
                f"cancelling job {former.id} of an earlier run: {why} ({' '.join(former.member.outputs)})"
            )
            self.cluster.cancel([former.id])
        if former.submission.job_id is None and former.submission not in self.dispatcher.unsure:
            self.dispatcher.unsure.append(former.submission)  # its sbatch may outlive its head
        self._close(former.submission, former.index, "cancelled", why)
        self.former.remove(former)
        return alive

    def _follow(self, task: Task, rows: Rows | None) -> None:
        self._tell_start(task)
        # The node's own verdict comes first, whatever SLURM says or does not say.
        code = task.verdict()
        if code == 0:
            self._succeed(task)
            return
        if code is not None:
            self._fail(task, "")
            return
        # Without a verdict, a job that the queue has is alive; a silent queue tells nothing.
        if rows is None:
            return
        row = rows.get(task.id)
        if row is not None and is_alive(rows, task.id, task.place.name):
            task.gone_since = None
            return
        # It is gone, or the queue calls it over: its last words may still be on their way through the file system, and
        # a state of the past is often followed by a requeue. Wait for either.
        now = time.time()
        task.gone_since = task.gone_since or now
        absent = now - task.gone_since
        patience = self.settings.lost_after
        # What SLURM calls completed has succeeded: its word must be on its way.
        slow = row is None or row.state in PASSING or row.state == "COMPLETED"
        if absent < (patience if slow else min(_SOON_S, patience)):
            return
        # All who may know must agree before it counts as lost: first the controller, asked for this job alone, ...
        word = self.cluster.known(task.id, task.place.name)
        if not is_over(word):
            return
        # ... then the accounting, for which patience ends some time: at once where the controller knows how it ended
        # (the accounting has one row for all elements of an array that were cancelled before their start).
        past = None
        if self.cluster.accounting is not False:
            answer = self.cluster.past([task.id])
            past = (answer or {}).get(task.id)
            is_told = word in OVER - PASSING
            if (past is None or past.state not in OVER) and not is_told and absent < _PATIENCE * patience:
                return
        if past is not None and past.state in OVER:
            words = past.words
        else:
            words = word if word in OVER and word is not None else (row.state if row else "")
        self._fail(task, words)

    def _succeed(self, task: Task) -> None:
        costs = costs_of(task.history, self.cluster)
        if self._is_to_be_accounted(task, costs):
            return
        self._tell_costs(task.name, task.outputs, costs)
        self.active.remove(task)
        attempt = task.attempts()[-1]
        self._close(task.place, task.index, "done", node=attempt.node)
        self.reporter.succeeded(task, (attempt.last.elapsed_s if attempt.last else None) or 0.0)

    def _is_to_be_accounted(self, task: Task, costs: list[AttemptCost]) -> bool:
        """Whether to wait for the accounting, which learns of a job's end later than its head does."""
        task.done_since = task.done_since or time.time()
        return (
            self.cluster.accounting is True
            and goal(self.settings.costs_into, task.name, task.outputs) is not None
            and any(cost.source != "accounting" for cost in costs)
            and time.time() - task.done_since < _ACCOUNTED_S
        )

    def _tell_costs(self, rule: str, outputs: list[str], costs: list[AttemptCost]) -> None:
        """Write down what a finished job used, in its own results too where that is wished."""
        self._write_costs(outputs, costs)
        path = goal(self.settings.costs_into, rule, outputs)
        problem = hand_over(path, costs) if path is not None else ""
        if problem:
            self.reporter.say(problem)

    def _fail(self, task: Task, state: str) -> None:
        """Send it again where that can help, else report it."""
        log = Path(log_of(task.place, task.index))
        end, attempts = task.log_end(log), task.attempts()
        overhead_mb, ending = self.settings.memory_overhead_mb, None if attempts else self.cluster.ending(task.id)
        cause = diagnose(attempts, end, state, task.sent, overhead_mb, self._memory_mb(task), ending)
        self.active.remove(task)
        node = attempts[-1].node if attempts else ending.node if ending else ""
        again = self._again(task, cause)
        self._close(task.place, task.index, "retried" if again else "failed", cause.text, node)
        if not again:
            self._write_costs(task.outputs, costs_of(task.history, self.cluster))
            attempt = f"attempt {task.attempt}, " if task.attempt > 1 else ""
            self.reporter.failed(task, f"{attempt}job {task.id}: {cause.text}", log, end)
            return
        saved = cause.kind == "saved"
        pause = 0.0 if saved else self.dispatcher.pause(task.attempt)
        more = f" with {task.request.memory_mb} MB" if cause.kind == "memory" else ""
        if cause.avoid:
            task.request, task.avoided = task.request.without_node(cause.avoid), (*task.avoided, cause.avoid)
            more = f", not to {','.join(task.request.exclude)},"
        text = cause.text.rstrip(".")
        self.reporter.say(f"job {task.id} ({task.title}): {text}. Sending it again{more} in {pause:.0f} s. Log: {log}")
        task.attempt, task.turns = (task.attempt, task.turns + 1) if saved else (task.attempt + 1, task.turns)
        task.not_before, task.submission = time.time() + pause, None
        self.dispatcher.waiting.append(task)

    def _memory_mb(self, task: Task) -> float | None:
        """The most memory a failed job was seen to use: by itself, else (it was killed before) by the accounting."""
        lasts = [one.last for one in task.attempts() if one.last is not None]
        used = [last.max_rss_mb for last in lasts if last.max_rss_mb is not None]
        if not used and self.cluster.accounting:
            used = [cost.max_rss_mb for cost in self.cluster.costs(task.id) or [] if cost.max_rss_mb is not None]
        return max(used, default=None)

    def _again(self, task: Task, cause: Cause) -> bool:
        """Whether to send a failed task again; with more memory where that was missing.

        A rule whose own `retries` are not used up says itself what memory its next attempt gets.
        """
        if cause.kind == "saved":
            return task.turns < self.settings.max_requeues
        if task.attempt > self.settings.retries or cause.kind == "final":
            return False
        if cause.kind == "memory":
            if self.settings.memory_growth <= 1 or task.may_restart:
                return False
            grown = task.sent.with_memory(self.settings.memory_growth)
            task.request = replace(task.request, memory_mb=max(task.request.memory_mb, grown.memory_mb))
        return True

    def _tell_of_stuck(self, rows: Rows | None) -> None:
        """Say once which jobs will not start unless somebody acts, and what to do: one line for all of one reason."""
        found: dict[Stuck, list[Task]] = {}
        for task in self.active:
            row = (rows or {}).get(task.id)
            stuck = stuck_for(row.state, row.reason) if row is not None and row.state not in _UNDER_WAY else None
            if stuck is not None and stuck.reason != task.told:
                task.told = stuck.reason
                found.setdefault(stuck, []).append(task)
        for stuck, tasks in found.items():
            names = tasks[0].title if len(tasks) == 1 else ", ".join(sorted({task.name for task in tasks}))
            more, themselves = (f" and {len(tasks) - 1} more", "themselves") if len(tasks) > 1 else ("", "itself")
            self.reporter.say(
                f"job {tasks[0].id}{more} ({names}) will not start by {themselves}: {stuck.reason}. "
                f"{stuck.advice_for(' '.join(ids_of(tasks)))}"
            )

    def _note_silence(self, rows: Rows | None) -> None:
        if rows is None and self.silent_since is None:
            self.silent_since = time.time()
            self.reporter.say("the cluster does not answer; jobs go on, waiting for it")
        elif rows is not None and self.silent_since is not None:
            self.reporter.say(f"the cluster answers again after {time.time() - self.silent_since:.0f} s")
            self.silent_since = None

    def _close(self, submission: Submission, index: int, state: State, cause: str = "", node: str = "") -> None:
        member = submission.members[index]
        member.state, member.cause, member.node = state, cause, node or member.node
        self.books.save(submission)

    def _write_costs(self, outputs: list[str], costs: list[AttemptCost]) -> None:
        try:
            write_costs(self.books.root, outputs, costs)
        except OSError as error:
            self.reporter.say(f"the costs of {' '.join(outputs)} are not written down: {error}")

    def _note_trouble(self) -> None:
        """Say once that the books cannot be written, and once that they can be again."""
        self.books.catch_up()
        if self.books.trouble and not self.trouble:
            self.reporter.say(
                f"records cannot be written ({self.books.trouble}); jobs go on, none is sent. Free the disk"
            )
        elif self.trouble and not self.books.trouble:
            self.reporter.say("records can be written again")
        self.trouble = self.books.trouble

    def _tell_start(self, task: Task) -> None:
        attempts = task.attempts()
        if attempts and not task.started:
            task.started = True
            self.reporter.say(f"job {task.id} ({task.title}) started on {attempts[-1].node}")
        for attempt in attempts[task.attempts_told :]:
            if attempt.start.edited:
                self.reporter.say(
                    f"job {task.id} ({task.title}) runs other code than was planned: since then "
                    f"{', '.join(attempt.start.edited)} changed. Make its results again: --force, or delete them"
                )
        task.attempts_told = len(attempts)

    def leave(self) -> None:
        """Let the jobs live: they stay open in the books for the next head."""
        self._say_of_each({task: f"left, {'running' if task.started else 'not started yet'}" for task in self.active})
        if self.active:
            self.reporter.say(
                f"{len(self.active)} job(s) left on the cluster; run the same command again to take them over"
            )

    def _say_of_each(self, ends: dict[Task, str]) -> None:
        """A line about each job that this head sent; beyond some, their number."""
        self.books.catch_up()
        for task, end in list(ends.items())[:_LINES]:
            self.reporter.say(f"job {task.id} ({task.title}): {end}")
        if len(ends) > _LINES:
            self.reporter.say(f"and {len(ends) - _LINES} more jobs: cem status")
        if self.books.trouble:
            self.reporter.say(f"records are not written ({self.books.trouble}): the next head asks the cluster")

    def cancel_all(self, new: list[Task]) -> None:
        """Cancel everything this head has sent, and see it gone."""
        undecided = [*new, *self.deciding]
        unsent = len(undecided) + len(self.dispatcher.waiting)
        self.deciding, self.dispatcher.waiting = [], []
        wanted = set(ids_of(self.active, brackets=False))
        names = {submission.name for submission in self.dispatcher.unsure}
        deadline, sure = time.monotonic() + 25, True
        while wanted or names:
            taken = self.cluster.cancel(wanted)
            rows = self.cluster.queue()
            if rows is not None:
                named = {job for job, row in rows.items() if row.name in names and row.state not in OVER}
                self.cluster.cancel(named)
                living = {job for job, row in rows.items() if row.state not in OVER}
                alive = living | {job.split("_")[0] for job in living}
                if taken and not wanted & alive and not named:
                    break
            if time.monotonic() > deadline:
                self.reporter.say(f"some jobs may still be there. Cancel them: {self.cluster.order(wanted, names)}")
                sure = False
                break
            time.sleep(0.5)
        ends = {}
        for task in self.active:
            ends[task] = "cancelled" if sure else "told to end, and SLURM has not confirmed it"
            if task.verdict() == 0:
                ends[task] = "done"  # the next head finds that it ended well
            else:
                self._close(task.place, task.index, "cancelled", "by this head's end")
        self._say_of_each(ends)
        if unsent:
            self.reporter.say(f"{unsent} job(s) were not sent yet")
        outputs = {path for task in undecided for path in task.outputs}
        going_on = {one.id for one in self.former if one.submission.job_id and outputs & set(one.member.outputs)}
        if going_on:
            self.reporter.say(
                f"{len(going_on)} job(s) of earlier runs may go on, as this one had not taken them over yet. Run the "
                f"same command again to do so, or cancel them: {self.cluster.order(going_on, ())}"
            )
        self.active = []
