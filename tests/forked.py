"""Programs that start in a moment: each a process of its own, forked by a server that has imported torch and cem."""

import contextlib
import multiprocessing
import os
import signal
import sys
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
# The last is what every optimizer of torch imports when it is made.
_SERVER.set_forkserver_preload(["cem.training", "cem.evaluation", "torch._dynamo"])


class Forked:
    """`python -c code argv…` without the seconds of its imports; called as a subprocess.Popen is.

    Its standard error is added to the file `log`.
    """

    def __init__(self, code: str, *argv: str | Path, log: Path) -> None:
        self._process = _SERVER.Process(target=_run, args=(code, [str(word) for word in argv], log), daemon=True)
        self._process.start()

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"still at work after {timeout} s")
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Nothing where it has ended."""
        assert self._process.pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _run(code: str, argv: list[str], log: Path) -> None:
    with log.open("a") as file:
        os.dup2(file.fileno(), 2)
    sys.argv = ["-c", *argv]
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
