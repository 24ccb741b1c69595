"""Whether a job of an earlier head is still the right one."""

from collections.abc import Iterable
from dataclasses import dataclass

from snakemake_executor_plugin_submitit.events import Attempt, has_ended_well, read_attempts
from snakemake_executor_plugin_submitit.records import Member, Submission
from snakemake_executor_plugin_submitit.send import is_whole
from snakemake_executor_plugin_submitit.slurm import Rows, is_alive
from snakemake_executor_plugin_submitit.task import Task


@dataclass(eq=False)
class Former:
    """A job that an earlier head entered in the books and did not close."""

    submission: Submission
    index: int

    @property
    def member(self) -> Member:
        return self.submission.members[self.index]

    @property
    def id(self) -> str:
        return self.submission.element(self.index)

    @property
    def last(self) -> Attempt | None:
        """Its last attempt."""
        return next(reversed(read_attempts(self.submission.events(self.index))), None)

    @property
    def ended_well(self) -> bool:
        return has_ended_well(self.submission.events(self.index))

    def is_alive(self, rows: Rows) -> bool:
        return is_alive(rows, self.id, self.submission.name)

    def find(self, rows: Rows) -> None:
        """Learn its id by its name, where the earlier head died between sbatch and its note."""
        if self.submission.job_id is None:
            ids = {job.split("_")[0] for job, row in rows.items() if row.name == self.submission.name}
            if ids:
                self.submission.job_id = min(ids, key=int)
                self.submission.save()


def classify(task: Task, formers: Iterable[Former], rows: Rows, since: float) -> tuple[Former | None, list[Former]]:
    """The former job that a task takes over, if any, and those that write the same files and are out of date.

    Taken over is its equal (`identity`) that lives, or that ended well after `since`, when Snakemake decided what has
    to run: a forced rerun of an older result really runs. One whose submission is not whole could never start.
    """
    adopted, outdated = None, []
    for former in formers:
        if not set(former.member.outputs) & set(task.outputs):
            continue
        fresh = former.ended_well and former.last is not None and former.last.last["time"] > since
        equal = former.member.key == task.key and former.submission.job_id is not None
        if (
            adopted is None
            and equal
            and (fresh or (former.is_alive(rows) and is_whole(former.submission, former.index)))
        ):
            adopted = former
        else:
            outdated.append(former)
    return adopted, outdated
