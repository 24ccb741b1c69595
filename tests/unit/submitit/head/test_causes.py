"""Every end has one line that says why, and whether the same may work when it is sent again."""

import re

import pytest

from snakemake_executor_plugin_submitit.books.events import Attempt, Event, Kind
from snakemake_executor_plugin_submitit.cluster.slurm import Ending
from snakemake_executor_plugin_submitit.head.causes import diagnose
from snakemake_executor_plugin_submitit.node.command import BEGINS

START = Event(event="start", time=0.0, node="g1")


def attempt(how: Kind, code: int | None = None) -> Attempt:
    return Attempt(START, Event(event=how, time=1.0, code=code))


FAILED = attempt("end", 1)
KILLED = "CalledProcessError: Command 'set -euo pipefail; python x.py' returned non-zero exit status 137."
SAVED = "Command '…' returned non-zero exit status 75."
CASES = {
    "node": ([Attempt(START)], "", "NODE_FAIL", "passing", r"the node failed on g1"),
    "preempted": ([attempt("stopped")], "", "PREEMPTED", "passing", r"preempted on g1"),
    "cancelled": ([attempt("stopped")], "", "CANCELLED by 1000", "final", r"cancelled by user 1000 on g1"),
    "time limit by SLURM": ([Attempt(START)], "", "TIMEOUT", "final", r"time limit.*asked 60 min.*Raise runtime"),
    "time limit unsaved": ([attempt("end", -1)], "", "", "final", r"did not save and end on SIGUSR2"),
    "saved too often": (
        [
            Attempt(
                START, Event(event="end", time=1.0, code=-1, why="Job not requeued because: timed-out too many times.")
            )
        ],
        "",
        "",
        "final",
        r"as often as submitit-max-requeues allows",
    ),
    "memory by SLURM": ([FAILED], "", "OUT_OF_MEMORY", "memory", r"asked 100 MB.*seen to use 512 MB.*Raise mem_mb"),
    "memory by its log": ([FAILED], "slurmstepd: error: Exceeded memory limit", "FAILED", "memory", r"out of memory"),
    "memory by polling": ([FAILED], "exceeded memory limit (1073741824 > 9), being", "", "memory", r"use 1024 MB"),
    "memory by Python": ([FAILED], "Traceback …\nMemoryError", "", "memory", r"out of memory"),
    "memory of the GPU": (
        [FAILED],
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "FAILED",
        "final",
        r"^the GPU's memory did not suffice on g1: use a smaller batch_size",
    ),
    "killed": ([FAILED], KILLED, "", "passing", r"killed on g1 by signal 9"),
    "saved": ([FAILED], SAVED, "", "passing", r"its state saved"),
    "saved when it was asked to": (
        [Attempt(START, Event(event="end", time=1.0, code=1, asked=True))],
        SAVED,
        "FAILED",
        "saved",
        r"its state saved on g1, but SLURM did not requeue it",
    ),
    "failed after it was asked to save": (
        [Attempt(START, Event(event="end", time=1.0, code=1, asked=True))],
        "returned non-zero exit status 1.",
        "FAILED",
        "final",
        r"failed on g1 with exit code 1",
    ),
    "saved at its limit": (
        [attempt("saved")],
        "",
        "FAILED",
        "saved",
        r"its state saved on g1, but SLURM did not requeue",
    ),
    "saved and cancelled": ([attempt("saved")], "", "CANCELLED by 0", "final", r"cancelled"),
    "never started": ([], "", "FAILED", "passing", r"never started \(FAILED\)"),
    "lost": ([Attempt(START)], "", "", "passing", r"lost after its start on g1 \(unknown to SLURM\)"),
    "launch": ([FAILED], "srun: error: Unable to create step for job 3: timeout", "", "passing", r"could not start"),
    "its own fault": ([FAILED], "ValueError: bad lr\n… non-zero exit status 1.", "", "final", r"failed on g1 with"),
}


@pytest.mark.parametrize("name", CASES)
def test_causes(request_made, name: str) -> None:
    attempts, log, state, kind, text = CASES[name]
    cause = diagnose(attempts, log, state, request_made, 300, 512.0)
    assert cause.kind == kind
    assert re.search(text, cause.text)
    assert "\n" not in cause.text


def test_the_status_of_the_script_is_told_and_not_that_of_what_ran_it(request_made) -> None:
    log = "returned non-zero exit status 2.\nlater: returned non-zero exit status 3."
    assert diagnose([FAILED], log, "", request_made, 0, None).text == "failed on g1 with exit code 3"


def test_what_an_earlier_attempt_printed_is_not_of_the_last(request_made) -> None:
    """The log is appended to: this one had saved, run out of memory, and was requeued, and then failed."""
    log = f"{BEGINS} 3 on g1\nreturned non-zero exit status 75.\nout of memory\n{BEGINS} 3 on g1\nMissingInputException"
    cause = diagnose([FAILED], log, "", request_made, 0, None)
    assert (cause.kind, cause.text) == ("final", "failed on g1 with exit code 1")


UNSEEN = Ending("0:53", "c1")
BROKEN = Ending("1:0", "c1")
NO_PYTHON = "slurmstepd: error: execve(): /home/me/.venv/bin/python: No such file or directory\nsrun: error: c1: …"
BEFORE = {
    "unseen": (
        "",
        UNSEEN,
        "passing",
        r"never started on c1 \(FAILED, exit code 0:53\).*does not see this folder",
        "c1",
    ),
    "broken": ("", BROKEN, "passing", r"never started on c1 \(FAILED, exit code 1:0\)", "c1"),
    "no python": (NO_PYTHON, BROKEN, "final", r"did not start on c1.*/home/me/.venv/bin/python: No such", ""),
    "no package": ("python: No module named submitit", BROKEN, "final", r"no module submitit.*submitit-python", ""),
    "no library": (
        "python: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: No such "
        "file or directory\nsrun: error: c1: task 0: Exited with exit code 127",
        Ending("127:0", "c1"),
        "final",
        r"cannot run on c1.*127:0.*libpython3\.11\.so.*submitit-setup",
        "",
    ),
    "old system": (
        "/v/bin/python: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by /v/bin/python)",
        BROKEN,
        "final",
        r"cannot run on c1.*GLIBC_2\.34.*submitit-python",
        "",
    ),
    "unknown": ("", None, "passing", r"never started \(FAILED\)", ""),
}


@pytest.mark.parametrize("name", BEFORE)
def test_causes_before_the_job_has_said_a_word(request_made, name: str) -> None:
    log, ending, kind, text, avoid = BEFORE[name]
    cause = diagnose([], log, "FAILED", request_made, 300, None, ending)
    assert (cause.kind, cause.avoid) == (kind, avoid)
    assert re.search(text, cause.text)
