"""How a long job is stopped and goes on.

SIGTERM, SIGUSR2 and Ctrl-C ask a job to save its state and to end with exit code SAVED; the same job, started again,
goes on. A second Ctrl-C ends it at once.
"""

import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cem.jobs.attempts import Attempts
from cem.jobs.state import FILES, FolderStore, StateStore, own_folder

SAVED = 75  # sysexits' EX_TEMPFAIL: the state is saved, run the same command again
SAVE_EVERY_S = 600  # work longer than this is saved on the way, too


class Interrupted(SystemExit):
    """A job saved its state and stopped, because it was asked to. The exit code is SAVED."""

    def __init__(self) -> None:
        super().__init__(SAVED)


class Checkpoints:
    """When long work is saved on the way: after SAVE_EVERY_S, and when it is asked to stop."""

    def __init__(self, store: StateStore, save: Callable[[], None]) -> None:
        """Save: hands the whole state to the store."""
        self._store, self._save = store, save
        self._due = time.monotonic() + SAVE_EVERY_S

    def after_batch(self) -> None:
        """Save where it is time to; call it with every batch. Raises Interrupted, all saved, when asked to stop."""
        stopping = self._store.asked_to_stop()
        if stopping or time.monotonic() > self._due:
            self._save()
            self._due = time.monotonic() + SAVE_EVERY_S
            if stopping:
                raise Interrupted


@contextmanager
def resumable(folder: Path, device: str) -> Iterator[FolderStore]:
    """Hold a job's state folder and listen for requests to stop; the state is forgotten when all went well.

    device: what the job computes on, for the record of its attempts. Only the main thread may do this. Raises
    StateError when another process holds the folder.
    """
    with own_folder(folder):
        store = FolderStore(folder, Attempts(folder, FILES, device, torch.cuda.device_count()))

        def ask(number: int, _: object) -> None:
            if number == signal.SIGINT and number in store.signals:
                raise KeyboardInterrupt
            store.signals.append(number)

        former = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)}
        try:
            yield store
        except Interrupted:
            store.attempts.end("saved")
            print(f"stopped on request, the state saved in {folder}: run the same again to go on", file=sys.stderr)
            raise
        except BaseException:
            store.attempts.end("failed")
            raise
        else:
            # All is written: to end by a signal now would be to do it again, without the state.
            for number in former:
                signal.signal(number, signal.SIG_IGN)
            shutil.rmtree(folder)
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
