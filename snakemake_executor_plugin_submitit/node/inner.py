"""The Snakemake that runs a job on its node: how its command is written on the head, and how it takes SIGTERM.

What SIGTERM finds done stays done. Snakemake by itself fails, or waits for itself for ever, when SIGTERM comes while it
notes that its last job has ended well; when it comes later still, Python is killed at its exit. A job whose results are
there would then begin again. Earlier signals have their usual effect: no other job is started, and the one that runs
has got the signal, too.

It runs its job once. What a rule's `retries` starts again is a job of its own on the cluster, with the resources of
that attempt: the head's Snakemake does it.
"""

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snakemake_interface_executor_plugins import utils

MODULE = "snakemake_executor_plugin_submitit.node.inner"
_INSTEAD_OF = ["-m", "snakemake"]  # the executor's command names this module, Snakemake adds these words
_LOCK = threading.Lock()
_original = utils.format_cli_value


@contextmanager
def quoted_for_the_shell(python: str) -> Iterator[None]:
    """While a command is built on the head: every word is safe from the shell that reads it.

    Snakemake builds the command as text and quotes with Python's repr, which for a path like /a/it's $(b) is a word
    that a shell expands. `python` is the plain path of Python, of which Snakemake takes the folder; a workflow may have
    replaced it by a quoted one.
    """
    with _LOCK:
        before = sys.executable
        sys.executable, utils.format_cli_value = python, _format
        try:
            yield
        finally:
            sys.executable, utils.format_cli_value = before, _original


def _format(value: Any, quote: bool = False, base64_encode: bool = False) -> str:
    if isinstance(value, str) and quote and not base64_encode and not utils.is_quoted(value):
        return shlex.quote(value)
    return str(_original(value, quote=quote, base64_encode=base64_encode))


def main() -> None:
    """Run Snakemake with the arguments of this process, and exit with its code."""
    if sys.argv[1:3] != _INSTEAD_OF:
        sys.exit(f"expected {' '.join(_INSTEAD_OF)} and Snakemake's arguments, found {' '.join(sys.argv[1:3])!r}")
    from snakemake.cli import main as snakemake
    from snakemake.executors.local import Executor
    from snakemake.rules import Rule
    from snakemake.scheduling.job_scheduler import JobScheduler

    schedule, exit_gracefully = JobScheduler.schedule, JobScheduler.exit_gracefully

    def heard(self: JobScheduler, *_: object) -> None:
        # In a thread, which may wait for the lock that the interrupted code holds.
        if not self._user_kill:
            threading.Thread(target=exit_gracefully, args=(self,)).start()

    def schedule_and_judge(self: JobScheduler) -> bool:
        done = schedule(self)
        failed = self._errors or self._executor_error or self.failed or self.remaining_jobs
        return done or (self._user_kill == "graceful" and not failed)

    JobScheduler.exit_gracefully, JobScheduler.schedule = heard, schedule_and_judge
    Rule.restart_times = property(lambda self: 0, lambda self, _: None)
    # A rule with `run:` has a Snakemake of its own below this one.
    python_of = Executor.get_python_executable
    Executor.get_python_executable = lambda self: f"{python_of(self)} -m {MODULE}"
    try:
        snakemake(sys.argv[3:])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Python forgets other handlers before it ends


if __name__ == "__main__":
    main()
