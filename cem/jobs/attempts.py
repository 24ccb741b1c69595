"""The attempts of a long job: where and when it was started, what it did before it ended, and what of that was lost."""

import json
import math
import resource
import socket
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cem import CemError
from cem.storage.files import write_json

FILE, HEARTBEAT = "attempts.json", "alive"
_BEAT_S = 2.0  # between two signs of life


class AttemptsError(CemError):
    """A record of attempts that is damaged."""


@dataclass
class Attempt:
    """One start. seconds: of work, as far as is known; lost_seconds: of those, what no later attempt could use.

    ended: saved (on request), failed, killed (nothing more was heard of it), done; empty while it runs.
    gpu_seconds: seconds times the GPUs it saw. cpu_seconds and max_rss_mb: of its process and those it started. None:
    unavailable, which is not 0. All of it is the job's own count.
    """

    node: str
    device: str
    started: str
    gpus: int | None = None
    seconds: float = 0.0
    lost_seconds: float = 0.0
    gpu_seconds: float | None = None
    cpu_seconds: float | None = None
    max_rss_mb: float | None = None
    ended: str = ""


class Attempts:
    """The attempts of one job, kept in its state folder, the present one last.

    A killed attempt says nothing, but its heartbeat shows how long it lived, and the state file what it had saved: file
    times are compared with file times, since a node's clock may differ from the file system's. Where the state is gone,
    all earlier work is lost. Raises AttemptsError when the record is damaged.
    """

    def __init__(self, folder: Path, state: Path, device: str, gpus: int = 0) -> None:
        self.folder, self.state = folder, state
        self.all = _read(folder / FILE)
        if self.all and self.all[-1].ended in ("", "done"):  # done, but its results were never written
            self._bury(self.all[-1])
        if not state.exists():
            for one in self.all:
                one.lost_seconds = one.seconds
        self._began = self._saved = time.monotonic()
        self._beaten = -math.inf
        self.all.append(Attempt(socket.gethostname(), device, datetime.now(UTC).isoformat(timespec="seconds"), gpus))
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

    def end(self, how: str) -> None:
        """Close the present attempt."""
        last, now = self.all[-1], time.monotonic()
        last.seconds, last.ended = now - self._began, how
        last.lost_seconds = 0.0 if how == "done" else now - self._saved
        last.gpu_seconds = _gpu_seconds(last)
        last.cpu_seconds, last.max_rss_mb = _used()
        self._write()

    @property
    def kept_seconds(self) -> float:
        """Work of earlier attempts that the present one goes on from."""
        return sum((one.seconds - one.lost_seconds for one in self.all[:-1]), 0.0)

    def rows(self) -> list[dict[str, Any]]:
        """As JSON takes them."""
        return [asdict(one) for one in self.all]

    def _bury(self, killed: Attempt) -> None:
        began, saved = _modified(self.folder / FILE), _modified(self.state)
        lived_until = max(began, saved, _modified(self.folder / HEARTBEAT))
        killed.seconds, killed.ended = lived_until - began, "killed"
        killed.lost_seconds = lived_until - max(began, saved)
        killed.gpu_seconds, killed.cpu_seconds, killed.max_rss_mb = _gpu_seconds(killed), None, None

    def _write(self) -> None:
        write_json(self.folder / FILE, self.rows())


def _gpu_seconds(attempt: Attempt) -> float | None:
    return None if attempt.gpus is None else attempt.seconds * attempt.gpus


def _used() -> tuple[float, float]:
    """CPU seconds and the most memory, in MB, of this process and of the children it has waited for."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes there, in KiB elsewhere
    return sum(part.ru_utime + part.ru_stime for part in parts), max(part.ru_maxrss for part in parts) * unit / 1e6


def _read(path: Path) -> list[Attempt]:
    if not path.exists():
        return []
    try:
        return [Attempt(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (ValueError, TypeError) as error:
        raise AttemptsError(
            f"{path}: expected a list of attempts, cannot read it: {error}. Delete it and run again."
        ) from None


def _modified(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
