"""What happened on the nodes, as the nodes tell it: one line of JSON per event, appended to the job's own file."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

Kind = Literal["start", "saved", "stopped", "end"]


class Event(BaseModel, frozen=True):
    """One line.

    start: an attempt begins; node, job, restarts and gpus are set, and edited: sources that changed since the plan.
    saved: the script saved on request, and the job goes back to the queue. stopped: the attempt was told to end, and
    there is no verdict. end: `code` is the exit code, -1 when time was up, `why` says more, and `asked` whether it was
    asked to save meanwhile. time is in seconds since 1970; the others of these numbers say what the attempt has used,
    None where that is unknown.
    """

    event: Kind
    time: float
    node: str = ""
    job: str = ""
    restarts: int = 0
    gpus: list[str] = []
    edited: list[str] = []
    code: int | None = None
    why: str = ""
    asked: bool = False
    elapsed_s: float | None = None
    cpu_s: float | None = None
    max_rss_mb: float | None = None


@dataclass
class Attempt:
    """One start of a job, and the last event after it; None when nothing more was heard of it."""

    start: Event
    last: Event | None = None

    @property
    def node(self) -> str:
        return self.start.node

    @property
    def how(self) -> str:
        """How it went on: saved, stopped, end, or empty when nothing more was heard of it."""
        return self.last.event if self.last else ""

    @property
    def code(self) -> int | None:
        """Its exit code; None while there is none."""
        return self.last.code if self.last and self.last.event == "end" else None


def append(path: Path, event: Kind, **values: Any) -> None:
    """Add a line, and bring it to the disk before going on. One before it that has no end is given one."""
    line = Event(event=event, time=time.time(), **values).model_dump(exclude_unset=True)
    with path.open("ab+") as file:
        torn = False
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            torn = file.read(1) != b"\n"
        file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_attempts(path: Path) -> list[Attempt]:
    """The attempts so far; a line that is not whole yet (or whose node was lost while writing) is passed over."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    attempts: list[Attempt] = []
    for line in lines:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:
            continue
        if event.event == "start":
            attempts.append(Attempt(event))
        elif attempts:
            attempts[-1].last = event
    return attempts


def has_ended_well(path: Path) -> bool:
    """Whether the last attempt succeeded."""
    attempts = read_attempts(path)
    return bool(attempts) and attempts[-1].code == 0
