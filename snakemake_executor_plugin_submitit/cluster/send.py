"""Submission: from a record in the books to jobs that SLURM, or this machine, has taken."""

import errno
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import JobPaths

from snakemake_executor_plugin_submitit.books.records import Submission
from snakemake_executor_plugin_submitit.cluster.local import DetachedLocalExecutor, Local
from snakemake_executor_plugin_submitit.cluster.resources import Request
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.node.command import Command

PYTHON = sys.executable  # as it was when Snakemake started: a workflow may change it
# What sbatch says when the same may succeed later.
_LATER = re.compile(
    r"timed out|unable to contact|connection refused|communication|temporar|try again|standby|zero bytes|"
    r"MaxSubmit|SubmitJobsLimit|job submit limit|job violates accounting/qos policy \(job submit limit",
    re.IGNORECASE,
)


class RefusedError(Exception):
    """Nothing was submitted, as far as is known. `later`: the same may succeed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.later = bool(_LATER.search(text))


def send_to_slurm(
    submission: Submission, commands: Sequence[Command], request: Request, settings: ExecutorSettings
) -> str:
    """Submit an array (one job: a plain job), and give its id. Raises RefusedError."""
    try:
        rules = "+".join(sorted({member.rule for member in submission.members}))
        executor = slurm_executor(submission.folder, submission.name, rules, request, settings)
        jobs = executor.submit_array(list(commands))
    except Exception as error:  # whatever stands between here and sbatch: the caller decides by its words
        refused = RefusedError(_words(error))
        refused.later |= isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise refused from error
    return str(jobs[0].job_id).split("_")[0]


def slurm_executor(
    folder: Path, name: str, comment: str, request: Request, settings: ExecutorSettings
) -> submitit.SlurmExecutor:
    """What submits with the options of a job: the jobs themselves, and the probe of `doctor`.

    Raises RuntimeError where there is no srun.
    """
    executor = submitit.SlurmExecutor(
        folder, max_num_timeout=settings.max_requeues, python=settings.python or shlex.quote(PYTHON)
    )
    executor.update_parameters(
        **request.parameters(settings.memory_overhead_mb),
        job_name=name,
        comment=comment[:200],
        signal_delay_s=settings.signal_delay,
        stderr_to_stdout=True,
        array_parallelism=settings.array_parallelism,
        setup=settings.setup.splitlines() or None,
        additional_parameters={"requeue": True},
    )
    return executor


def send_to_this_machine(
    local: Local,
    submission: Submission,
    command: Command,
    gpus: Sequence[str],
    minutes: int,
    settings: ExecutorSettings,
) -> str:
    """Start one job here, and give its id."""
    executor = DetachedLocalExecutor(
        submission.folder, max_num_timeout=settings.max_requeues, python=shlex.quote(PYTHON)
    )
    executor.update_parameters(
        timeout_min=minutes,
        signal_delay_s=settings.signal_delay,
        visible_gpus=[int(gpu) for gpu in gpus],
        gpus_per_node=len(gpus),
    )
    return local.start(executor, command)


def log_of(submission: Submission, index: int) -> str:
    """Where a job's own output goes."""
    return str(JobPaths(submission.folder, submission.element(index)).stdout)


def is_whole(submission: Submission, index: int) -> bool:
    """Whether submitit finished this submission: a job without its file would wait for it for ever."""
    return bool(JobPaths(submission.folder, submission.element(index)).submitted_pickle.exists())


def _words(error: BaseException) -> str:
    """What an error and what led to it say, in a line; a site's own words whole."""
    said: list[str] = []
    seen: Any = error
    while seen is not None:
        said += [line.strip() for line in str(seen).splitlines() if line.strip()]
        seen = seen.__cause__
    lines = list(dict.fromkeys(said))
    own = [line.removeprefix("sbatch: ") for line in lines if line.startswith("sbatch: ")]
    return "; ".join(own or [line for line in lines if "error" in line.lower()] or lines)
