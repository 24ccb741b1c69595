"""The attempts of a long job: where and when it was started, what it did before it ended, and what of that was lost."""

import math
import resource
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from cem import CemError
from cem.storage.files import write_json
from cem.storage.job_records import Attempt
from cem.storage.records import findings

FILE, HEARTBEAT = "attempts.json", "alive"
_BEAT_S = 2.0  # between two signs of life


class AttemptsError(CemError):
    """A record of attempts that is damaged."""


class Counted:
    """One start of some work in this process, counted from here on."""

    def __init__(self, device: str, gpus: int) -> None:
        self._began, self._used_before = time.monotonic(), _used()[0]
        started = datetime.now(UTC).isoformat(timespec="seconds")
        self.attempt = Attempt(node=socket.gethostname(), device=device, started=started, gpus=gpus)

    def end(self, how: str) -> Attempt:
        """What it used up to now."""
        seconds = time.monotonic() - self._began
        cpu_seconds, max_rss_mb = _used()
        cpu_seconds -= self._used_before  # of other work in this process
        changes = {"seconds": seconds, "ended": how, "cpu_seconds": cpu_seconds, "max_rss_mb": max_rss_mb}
        return self.attempt.model_copy(update=changes | {"gpu_seconds": _gpu_seconds(self.attempt, seconds)})


class Attempts:
    """The attempts of one job, kept in its state folder, the present one last.

    A killed attempt says nothing, but its heartbeat shows how long it lived, and the state's files what it had saved:
    file times are compared with file times, since a node's clock may differ from the file system's. Where no state is
    left, all earlier work is lost. Raises AttemptsError when the record is damaged.
    """

    def __init__(self, folder: Path, states: str, device: str, gpus: int = 0) -> None:
        """States: pattern of the names of the state's files."""
        self.folder, self._states = folder, states
        self.all = _read(folder / FILE)
        if self.all and self.all[-1].ended in ("", "done"):  # done, but its results were never written
            self.all[-1] = self._killed(self.all[-1])
        if not any(folder.glob(states)):
            self.all = [one.model_copy(update={"lost_seconds": one.seconds}) for one in self.all]
        self._saved, self._beaten = time.monotonic(), -math.inf
        self._present = Counted(device, gpus)
        self.all.append(self._present.attempt)
        self._write()

    def beat(self) -> None:
        """A sign of life; to be called often. A heartbeat that cannot be written ends no job."""
        if time.monotonic() - self._beaten > _BEAT_S:
            self._beaten = time.monotonic()
            try:
                (self.folder / HEARTBEAT).touch()
            except OSError as error:
                print(f"{self.folder / HEARTBEAT}: cannot write it ({error}); going on", file=sys.stderr)

    def saved(self) -> None:
        """The state is saved: what was done up to now is not lost any more."""
        self._saved = time.monotonic()

    def end(self, how: str) -> list[Attempt]:
        """Close the present attempt; give all of them."""
        lost = 0.0 if how == "done" else time.monotonic() - self._saved
        self.all[-1] = self._present.end(how).model_copy(update={"lost_seconds": lost})
        self._write()
        return self.all

    @property
    def kept_seconds(self) -> float:
        """Work of earlier attempts that the present one goes on from."""
        return sum((one.seconds - one.lost_seconds for one in self.all[:-1]), 0.0)

    def _killed(self, attempt: Attempt) -> Attempt:
        """What is known of an attempt that did not say how it ended."""
        began = _modified(self.folder / FILE)
        saved = max(map(_modified, self.folder.glob(self._states)), default=0.0)
        lived_until = max(began, saved, _modified(self.folder / HEARTBEAT))
        changes = {"seconds": lived_until - began, "ended": "killed", "lost_seconds": lived_until - max(began, saved)}
        changes |= {"gpu_seconds": _gpu_seconds(attempt, lived_until - began), "cpu_seconds": None, "max_rss_mb": None}
        return attempt.model_copy(update=changes)

    def _write(self) -> None:
        write_json(self.folder / FILE, [one.model_dump(mode="json") for one in self.all])


def _gpu_seconds(attempt: Attempt, seconds: float) -> float | None:
    return None if attempt.gpus is None else seconds * attempt.gpus


def _used() -> tuple[float, float]:
    """CPU seconds and the most memory, in MB, of this process and of the children it has waited for."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return sum(part.ru_utime + part.ru_stime for part in parts), max(part.ru_maxrss for part in parts) * unit / 1e6


def _read(path: Path) -> list[Attempt]:
    if not path.exists():
        return []
    try:
        return TypeAdapter(list[Attempt]).validate_json(path.read_bytes())
    except ValidationError as error:
        raise AttemptsError(
            f"{path}: expected a list of attempts, cannot read it: {findings(error)}. Delete it and run again."
        ) from None


def _modified(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
