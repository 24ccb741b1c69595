"""What every job's script does around its one call: the log, and errors that say what to do."""

import gc
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cem import CemError

DONE = "done"


@contextmanager
def job(log: str) -> Iterator[None]:
    """Send all that is written to standard error (by libraries in C, too) to the rule's log.

    An error that the user can correct ends the log with its message alone and the process with exit code 1; any other
    keeps its traceback, but for Ctrl-C; `done` is the last line of all that went well.
    """
    Path(log).parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        yield
    except CemError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C: run the same command again to go on")
    finally:
        gc.freeze()  # or Python, as it ends, walks through all that is left
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the work is done: being stopped while Python ends would undo it
    print(DONE, file=sys.stderr, flush=True)


@contextmanager
def imports() -> Iterator[None]:
    """Import what a job needs; Python's collector of garbage does not walk through it.

    It would, again and again while all that is made, and at times ever after: a sixth to a third of a job's start.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
