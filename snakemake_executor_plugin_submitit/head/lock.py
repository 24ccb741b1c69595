"""The head's lock: one Snakemake of this executor in a working folder, however the last one ended."""

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.head.folder import claim


class HeadLock:
    """Held for the life of a head. The file names its holder; the lock itself goes with the process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def acquire(self) -> None:
        """Take the lock. Raises WorkflowError when another head lives, naming its host and pid; and see `claim`.

        Where the file system has no locks, a holder on this host that is gone is recognised by its pid; one on another
        host cannot be, and the message says which file to remove.
        """
        claim(self.path.parent)
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            holder = _parse(file.read())
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES) or (holder and not _is_gone(holder)):
                file.close()
                raise WorkflowError(self._refusal(holder, error)) from None
        file.seek(0)
        file.truncate()
        json.dump(_this_process(), file)
        file.flush()
        self._file = file

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.truncate(0)
            self._file.close()
            self._file = None

    def _refusal(self, holder: dict[str, object], error: OSError) -> str:
        who = (
            "a process that left no name"
            if not holder
            else (f"process {holder['pid']} on {holder['host']}, since {holder['since']}")
        )
        advice = "Wait for it, stop it, or work in another folder (--directory)."
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            advice += (
                f" If it is gone, remove {self.path}: this file system has no locks ({error.strerror}) to tell by."
            )
        return f"expected to be the only Snakemake that submits from this folder, found another: {who}. {advice}"


def _this_process() -> dict[str, object]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "born": _birth(os.getpid()),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _parse(text: str) -> dict[str, object]:
    try:
        holder = json.loads(text)
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_gone(holder: dict[str, object]) -> bool:
    """Whether a holder is known to have ended: it ran here, and its pid is free or another process's."""
    return holder["host"] == socket.gethostname() and _birth(int(str(holder["pid"]))) != holder["born"]


def _birth(pid: int) -> str:
    """When a process started, in ticks since boot; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""
