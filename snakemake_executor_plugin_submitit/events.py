"""What happened on the nodes, as the nodes tell it: one line of JSON an event, appended, the job's own books.

start: node, job, restarts, gpus. saved: the script saved on request and the job goes back to the queue. end: the exit
code and what the log says of it. Each carries the time; saved and end carry what the attempt has used.
"""

import json
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Attempt:
    """One start of a job. `how`: saved, end, or empty when nothing more was heard of it."""

    start: dict[str, Any]
    how: str = ""
    last: dict[str, Any] = field(default_factory=dict)

    @property
    def node(self) -> str:
        return str(self.start["node"])


def append(path: Path, event: str, **values: Any) -> None:
    """Add a line, and bring it to the disk before going on."""
    line = json.dumps({"event": event, "time": time.time(), **values}) + "\n"
    with path.open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_attempts(path: Path) -> list[Attempt]:
    """The attempts so far; a line that is not whole yet (or a node lost while writing) is passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    attempts: list[Attempt] = []
    for line in lines:
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if values.get("event") == "start":
            attempts.append(Attempt(values))
        elif attempts:
            attempts[-1].how, attempts[-1].last = values["event"], values
    return attempts


def has_ended_well(path: Path) -> bool:
    """Whether the last attempt succeeded."""
    attempts = read_attempts(path)
    return bool(attempts) and attempts[-1].how == "end" and attempts[-1].last["code"] == 0
