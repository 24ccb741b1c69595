"""What the jobs used: by the accounting where there is one, else by the jobs' own notes. Unknown is not zero."""

from snakemake_executor_plugin_submitit.books.costs import AttemptCost
from snakemake_executor_plugin_submitit.books.events import Attempt, read_attempts
from snakemake_executor_plugin_submitit.books.records import Submission
from snakemake_executor_plugin_submitit.cluster.local import Local
from snakemake_executor_plugin_submitit.cluster.slurm import OVER, Cost, Slurm

_CLOCKS_S = 2.0  # by which the clocks of nodes and accounting may differ


def costs_of(history: list[tuple[Submission, int]], cluster: Slurm | Local) -> list[AttemptCost]:
    """What the submissions of one job used, each attempt."""
    return [attempt for submission, index in history for attempt in _attempts(submission, index, cluster)]


def _attempts(submission: Submission, index: int, cluster: Slurm | Local) -> list[AttemptCost]:
    job = submission.element(index)
    own = read_attempts(submission.events(index))
    accounted = (cluster.costs(job) if cluster.accounting else None) or []
    return [_accounted(attempt, _noted(job, attempt), accounted) for attempt in own]


def _noted(job: str, attempt: Attempt) -> AttemptCost:
    """What an attempt used by its own notes."""
    last = attempt.last
    elapsed_s = last.elapsed_s if last else None
    return AttemptCost(
        job=job,
        node=attempt.node,
        source="job",
        state=attempt.how,
        lost=attempt.code != 0,
        elapsed_s=elapsed_s,
        cpu_s=last.cpu_s if last else None,
        gpu_s=None if elapsed_s is None else elapsed_s * len(attempt.start.gpus),
        max_rss_mb=last.max_rss_mb if last else None,
    )


def _accounted(attempt: Attempt, noted: AttemptCost, accounted: list[Cost]) -> AttemptCost:
    """By the accounting's row of an attempt: the one within whose time it began; by its own notes without one."""
    begun = attempt.start.time
    for cost in accounted:
        over = cost.state in OVER or cost.state == "REQUEUED"  # there a word for an attempt of the past
        if over and cost.started - _CLOCKS_S <= begun <= cost.started + cost.elapsed_s + _CLOCKS_S:
            return AttemptCost(
                job=noted.job,
                node=noted.node,
                source="accounting",
                state=cost.state,
                lost=noted.lost,
                elapsed_s=cost.elapsed_s,
                cpu_s=cost.cpu_s,
                gpu_s=cost.elapsed_s * (len(attempt.start.gpus) if cost.gpus is None else cost.gpus),
                max_rss_mb=cost.max_rss_mb if cost.max_rss_mb is not None else noted.max_rss_mb,
            )
    return noted
