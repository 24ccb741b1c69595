"""Where a long job keeps its state: a folder of its own in `results/.state`, with a file for each part of the work.

Each file is whole or absent. Nothing ties two of them together: parts are worked on one after another, each starts
from what those before it ended with, and each ends with the same bits however often it is taken up again. So a kill
between two saves costs at most the work since the last save, and a part file that is older than those after it (or is
deleted) is only worked through again.
"""

import fcntl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from cem import NUMERICS, CemError
from cem.config.base import digest
from cem.jobs.attempts import Attempts, Counted
from cem.storage.job_records import Attempt
from cem.storage.tensors import Packed, load_checkpoint, save_checkpoint, subset

ROOT = "state"
FILES = f"{ROOT}*.safetensors"


class StateError(CemError):
    """A state folder that another process uses."""


class StateStore:
    """Where a job's work keeps its state, and hears whether to stop. This one keeps nothing and is never told to."""

    @property
    def place(self) -> str:
        """Where the state is, for messages."""
        return "memory only"

    @property
    def earlier_seconds(self) -> float:
        """Work of earlier attempts that the state holds."""
        return 0.0

    def part(self, name: str) -> "StateStore":
        """A store for one part of the work, beside those of the other parts."""
        return self

    def load(self) -> Packed | None:
        """The state that was saved last; None to start from the beginning."""
        return None

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        """Keep a state, whole or not at all. The header holds JSON values."""

    def asked_to_stop(self) -> bool:
        """Whether to save and stop. To be called with every batch: it is a sign of life, too."""
        return False

    def end(self) -> list[Attempt]:
        """Close the record of attempts, and give it."""
        return []


class CountingStore(StateStore):
    """Keeps no state either, and counts what the work uses from here on, as its one attempt."""

    def __init__(self, device: str, gpus: int) -> None:
        self._counted = Counted(device, gpus)

    def end(self) -> list[Attempt]:
        return [self._counted.end("done")]


@dataclass(frozen=True)
class FolderStore(StateStore):
    """State in a folder. name: of the file. signals: those that have asked the job to stop."""

    folder: Path
    attempts: Attempts
    signals: list[int] = field(default_factory=list)
    name: str = ROOT

    @property
    def path(self) -> Path:
        """The state's file."""
        return self.folder / f"{self.name}.safetensors"

    @property
    def place(self) -> str:
        return str(self.path)

    @property
    def earlier_seconds(self) -> float:
        return self.attempts.kept_seconds

    def part(self, name: str) -> StateStore:
        return replace(self, name=f"{self.name}.{name}")

    def load(self) -> Packed | None:
        """Raises CheckpointError when the file is damaged."""
        return load_checkpoint(self.path, "state") if self.path.exists() else self._load_former()

    def _load_former(self) -> Packed | None:
        """This part of a file with all parts, as cem 0.1.0 kept them; None where there is no such file or part."""
        whole = self.folder / f"{ROOT}.safetensors"
        if self.path == whole or not whole.exists():
            return None
        tensors, header = load_checkpoint(whole, "state")
        for name in self.name.split(".")[1:]:
            if name not in header.get("parts", {}):
                return None
            tensors, header = subset(tensors, name), header["parts"][name]
        return tensors, header

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        save_checkpoint(self.path, "state", tensors, header)
        self.attempts.saved()

    def asked_to_stop(self) -> bool:
        self.attempts.beat()
        return bool(self.signals)

    def end(self) -> list[Attempt]:
        return self.attempts.end("done")


def state_folder(results: Path, settings: Mapping[str, Any], inputs: Mapping[str, str]) -> Path:
    """Folder of a job's state: named by its settings, the digests of its inputs and the program's numerics."""
    named = {"settings": settings, "inputs": inputs, "numerics": NUMERICS}
    return results / ".state" / digest(named, 16)


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
