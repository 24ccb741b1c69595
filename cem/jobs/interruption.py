"""Long jobs that may end at any moment: a folder for their state, a lock on it, requests to stop, and attempts.

SIGTERM and SIGUSR2 ask a job to save its state and to end with exit code SAVED; the same job, started again, goes on.
"""

import fcntl
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from cem import NUMERICS, CemError
from cem.config.base import digest
from cem.jobs.attempts import Attempts
from cem.storage.tensors import load_checkpoint, save_checkpoint, subset

SAVED = 75  # sysexits' EX_TEMPFAIL: the state is saved, run the same command again
SAVE_EVERY_S = 600  # work longer than this is saved on the way, too


class StateError(CemError):
    """A state folder that another process uses."""


class Interrupted(SystemExit):
    """A job saved its state and stopped, because it was asked to. The exit code is SAVED."""

    def __init__(self) -> None:
        super().__init__(SAVED)


class Progress:
    """Where a job keeps its state, and whether it is asked to stop. This one keeps nothing and is never asked."""

    @property
    def place(self) -> str:
        """Where the state is, for messages."""
        return "memory only"

    @property
    def earlier_seconds(self) -> float:
        """Work of earlier attempts that the state holds."""
        return 0.0

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The state that was saved last; None to begin anew."""
        return None

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Keep a state, whole or not at all."""

    def asked_to_stop(self) -> bool:
        """Whether to save and stop. To be called with every batch: it is a sign of life, too."""
        return False

    def end(self) -> list[dict[str, Any]]:
        """Close the record of attempts, and give it."""
        return []


class Checkpoints:
    """When long work is saved on the way: after SAVE_EVERY_S, and when it is asked to stop."""

    def __init__(self, progress: Progress, save: Callable[[], None]) -> None:
        """Save: hands the whole state to progress."""
        self._progress, self._save = progress, save
        self._due = time.monotonic() + SAVE_EVERY_S

    def after_batch(self) -> None:
        """Save where it is time to; call it with every batch. Raises Interrupted, all saved, when asked to stop."""
        stopping = self._progress.asked_to_stop()
        if stopping or time.monotonic() > self._due:
            self._save()
            self._due = time.monotonic() + SAVE_EVERY_S
            if stopping:
                raise Interrupted


class Parts:
    """One state that several pieces of work share: each saves and loads its own part, and all lie in one file."""

    def __init__(self, whole: Progress) -> None:
        self.whole = whole
        tensors, header = whole.load() or ({}, {"parts": {}})
        self.headers: dict[str, dict[str, Any]] = header["parts"]
        self.tensors = {name: subset(tensors, name) for name in self.headers}

    def __getitem__(self, name: str) -> Progress:
        return _Part(self, name)


@dataclass
class _Part(Progress):
    parts: Parts
    name: str

    @property
    def place(self) -> str:
        return self.parts.whole.place

    @property
    def earlier_seconds(self) -> float:
        return self.parts.whole.earlier_seconds

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        if self.name not in self.parts.headers:
            return None
        return self.parts.tensors[self.name], deepcopy(self.parts.headers[self.name])

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        # Copies: what is saved here is written again when another part is saved, and may have changed by then.
        self.parts.tensors[self.name] = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
        self.parts.headers[self.name] = deepcopy(dict(header))
        flat = {f"{part}.{name}": tensor for part, own in self.parts.tensors.items() for name, tensor in own.items()}
        self.parts.whole.save(flat, {"parts": self.parts.headers})

    def asked_to_stop(self) -> bool:
        return self.parts.whole.asked_to_stop()

    def end(self) -> list[dict[str, Any]]:
        return self.parts.whole.end()


@dataclass
class FolderProgress(Progress):
    """State in a folder of `results/.state`."""

    folder: Path
    attempts: Attempts
    asked: bool = False

    @property
    def path(self) -> Path:
        """The state's file."""
        return _state_file(self.folder)

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def earlier_seconds(self) -> float:
        return self.attempts.kept_seconds

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        return load_checkpoint(self.path, "state") if self.path.exists() else None

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        save_checkpoint(self.path, "state", tensors, header)
        self.attempts.saved()

    def asked_to_stop(self) -> bool:
        self.attempts.beat()
        return self.asked

    def end(self) -> list[dict[str, Any]]:
        self.attempts.end("done")
        return self.attempts.rows()

    def _catch(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def state_folder(results: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Path:
    """Folder of a job's state: named by its settings, the digests of its inputs and the program's numerics."""
    named = {"settings": settings, "inputs": inputs, "numerics": NUMERICS}
    return results / ".state" / digest(named, 16)


@contextmanager
def resumable(folder: Path, device: str) -> Iterator[FolderProgress]:
    """Hold a job's state folder and listen for requests to stop; the state is forgotten when all went well.

    device: what the job computes on, for the record of its attempts. Only the main thread may do this. Raises
    StateError when another process holds the folder.
    """
    with own_folder(folder):
        attempts = Attempts(folder, _state_file(folder), device, torch.cuda.device_count())
        progress = FolderProgress(folder, attempts)
        former = {number: signal.signal(number, progress._catch) for number in (signal.SIGTERM, signal.SIGUSR2)}
        try:
            yield progress
        except Interrupted:
            progress.attempts.end("saved")
            print(f"stopped on request, the state saved in {folder}: run the same again to go on", file=sys.stderr)
            raise
        except BaseException:
            progress.attempts.end("failed")
            raise
        else:
            # All is written: to end by a signal now would be to do it again, without the state.
            for number in former:
                signal.signal(number, signal.SIG_IGN)
            shutil.rmtree(folder)
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Hold a state folder for one process, for the length of a block.

    Raises StateError when another process holds it. The lock goes with its process, however that ends.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StateError(
                f"{folder}: another process is at work with exactly these settings and inputs. Wait for it, or stop "
                "it; then run again."
            ) from None
        except OSError as error:
            print(f"{folder}: this file system has no locks ({error}); going on without one", file=sys.stderr)
        yield folder


def _state_file(folder: Path) -> Path:
    return folder / "state.safetensors"
