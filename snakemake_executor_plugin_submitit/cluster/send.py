"""Submission: from a record in the books to jobs that SLURM, or this machine, has taken."""

import errno
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from submitit.core.utils import DelayedSubmission, JobPaths

from snakemake_executor_plugin_submitit.books.records import Submission
from snakemake_executor_plugin_submitit.cluster.local import DetachedLocalExecutor, Local
from snakemake_executor_plugin_submitit.cluster.resources import Request
from snakemake_executor_plugin_submitit.cluster.script import SUBMITIT, batch_script
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import Answer, ask
from snakemake_executor_plugin_submitit.node.command import Command

PYTHON = sys.executable  # as it was when Snakemake started: a workflow may change it
_SBATCH_S = 300.0  # a busy controller keeps sbatch waiting, which tries again by itself for two minutes
# What sbatch says when the same may succeed later: SLURM's own sentences, and no words that a site may use, too.
_LATER = re.compile(
    r"timed out|no answer within|unable to contact|connection (?:refused|reset|rejected|forced closed)|"
    r"communications? \w+ failure|message (?:send|receive) failure|rate limit exceeded|"
    r"temporarily (?:un\w+|disabled)|create job record, try again|MaxJobCount limit|I/O error writing|standby|"
    r"zero bytes",
    re.IGNORECASE,
)
_PASSING = {  # of this machine and its file systems
    errno.ENOSPC, errno.EDQUOT, errno.EAGAIN, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
# One text of SLURM stands for limits on the number of jobs, which pass, and on their size, which do not. The line
# before it names the limit.
_POLICY = re.compile(r"Job violates accounting/QOS policy", re.IGNORECASE)
UNNAMED = "unnamed"
_LIMIT = re.compile(r"\b(?:QOS|Assoc|Max)\w+")


class RefusedError(Exception):
    """Nothing was submitted, as far as is known. `later`: the same may succeed.

    limit: the limit on submitted jobs that forbids it now, else empty; UNNAMED where SLURM does not say which limit.
    """

    def __init__(self, text: str, by_slurm: str | None = None) -> None:
        """text: as the user is told. by_slurm: the part of it that is SLURM's own, which decides; absent: all."""
        super().__init__(text)
        own = text if by_slurm is None else by_slurm
        named = _LIMIT.findall(own)
        count = next((name for name in named if "SubmitJob" in name), "")
        self.limit = count or (UNNAMED if _POLICY.search(own) and not named else "")
        self.later = bool(self.limit or _LATER.search(own))


def send_to_slurm(
    submission: Submission, commands: Sequence[Command], request: Request, settings: ExecutorSettings
) -> str:
    """Submit an array (one job: a plain job), and give its id. Raises RefusedError."""
    folder = submission.folder
    script = folder / "batch.sh"
    pickles = [folder / f"{index}.pkl" for index in range(len(commands))]
    try:
        rules = "+".join(sorted({member.rule for member in submission.members}))
        text = script_of(folder, submission.name, rules, request, settings, count=len(commands))
        script.write_text(text, encoding="utf-8")
        for command, path in zip(commands, pickles, strict=True):
            delayed = DelayedSubmission(command)
            delayed.set_timeout(request.minutes, settings.max_requeues)
            delayed.dump(path)
        answer = ask("sbatch", "--parsable", str(script), timeout_s=_SBATCH_S)
        if not answer.ok:
            raise refusal(answer)
        found = re.search(r"^(\d+)(?:;\S*)?$", answer.out.strip(), re.MULTILINE)
        if found is None:
            raise RefusedError(f"expected the number of a job from sbatch, found {answer.out.strip()[:200]!r}")
        for index, path in enumerate(pickles):
            job = found[1] if len(pickles) == 1 else f"{found[1]}_{index}"
            path.rename(JobPaths(folder, job).submitted_pickle)
    except OSError as error:
        refused = RefusedError(str(error))
        refused.limit, refused.later = (
            "",
            error.errno in _PASSING,
        )  # its words hold a path, which may be called anything
        raise refused from error
    return found[1]


def script_of(
    folder: Path,
    name: str,
    comment: str,
    request: Request,
    settings: ExecutorSettings,
    *,
    count: int = 1,
    setup: Sequence[str] | None = None,
    module: str = SUBMITIT,
) -> str:
    """The batch file with the options of a job: of the jobs themselves, and of the probe of `doctor`.

    setup: lines in place of the settings' own. module: what Python runs, with `folder` as its argument.
    """
    options = {
        **request.parameters(settings.memory_overhead_mb),
        "job_name": name,
        "comment": comment[:200],
        "signal": f"USR2@{settings.signal_delay}",
        "requeue": True,
    }
    return batch_script(
        folder,
        options,
        settings.python or shlex.quote(PYTHON),
        settings.setup.splitlines() if setup is None else setup,
        request.extra,
        count,
        settings.array_parallelism,
        module,
    )


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


def refusal(answer: Answer) -> RefusedError:
    """What sbatch says of a refusal, in a line; a site's own words whole, though they do not decide what follows."""
    lines = list(dict.fromkeys(line.strip() for line in (answer.error or answer.out).splitlines() if line.strip()))
    own = [line for line in lines if line.startswith("sbatch: ")] or lines
    texts = ("; ".join(line.removeprefix("sbatch: ") for line in some) for some in (lines, own))
    text, by_slurm = (one or f"exit code {answer.code}" for one in texts)
    return RefusedError(text, by_slurm)
