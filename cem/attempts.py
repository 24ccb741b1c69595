"""The attempts of a long job: where and when it was started, what it did before it ended, and what of that was lost."""

import json
import socket
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cem.store import write_json

FILE, HEARTBEAT = "attempts.json", "alive"
_BEAT_S = 2.0  # between two signs of life


@dataclass
class Attempt:
    """One start. seconds: of work, as far as is known; lost_seconds: of those, what no later attempt could use.

    ended: saved (on request), failed, killed (nothing more was heard of it), done; empty while it runs.
    """

    node: str
    device: str
    started: str
    seconds: float = 0.0
    lost_seconds: float = 0.0
    ended: str = ""


class Attempts:
    """The attempts of one job, kept in its state folder, the present one last.

    A killed attempt says nothing, but its heartbeat shows how long it lived, and the state file what it had saved.
    """

    def __init__(self, folder: Path, state: Path, device: str) -> None:
        self.folder, self.state = folder, state
        path = folder / FILE
        self.all = [Attempt(**row) for row in json.loads(path.read_text())] if path.exists() else []
        if self.all and not self.all[-1].ended:
            self._close("killed", _modified(folder / HEARTBEAT))
        self._began, self._beaten = time.time(), 0.0
        self.all.append(Attempt(socket.gethostname(), device, datetime.now(UTC).isoformat(timespec="milliseconds")))
        self._write()

    def beat(self) -> None:
        """A sign of life; to be called often."""
        if time.monotonic() - self._beaten > _BEAT_S:
            self._beaten = time.monotonic()
            (self.folder / HEARTBEAT).touch()

    def end(self, how: str) -> None:
        """Close the present attempt."""
        self._close(how, time.time())
        if how == "done":
            self.all[-1].lost_seconds = 0.0
        self._write()

    @property
    def kept_seconds(self) -> float:
        """Work of earlier attempts that the present one goes on from."""
        return sum(one.seconds - one.lost_seconds for one in self.all[:-1])

    def rows(self) -> list[dict[str, Any]]:
        """As JSON takes them."""
        return [asdict(one) for one in self.all]

    def _close(self, how: str, lived_until: float) -> None:
        last = self.all[-1]
        began = datetime.fromisoformat(last.started).timestamp()
        last.seconds = max(0.0, lived_until - began)
        last.lost_seconds = min(last.seconds, max(0.0, lived_until - max(began, _modified(self.state))))
        last.ended = how

    def _write(self) -> None:
        write_json(self.folder / FILE, self.rows())


def _modified(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
