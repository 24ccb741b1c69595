"""Stopping on request: SIGTERM and SIGUSR2 save the state at the next batch and end the process with SAVED."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SAVED = 75  # sysexits' EX_TEMPFAIL: the state is saved, run the same command again


class Interrupted(SystemExit):
    """The training saved its state and stopped, because it was asked to. The exit code is SAVED."""

    def __init__(self) -> None:
        super().__init__(SAVED)


class StopRequest:
    """Says whether a signal has asked this process to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Catch SIGTERM and SIGUSR2 for the length of a block. Only the main thread may do this."""
    request = StopRequest()
    former = {number: signal.signal(number, request) for number in (signal.SIGTERM, signal.SIGUSR2)}
    try:
        yield request
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
