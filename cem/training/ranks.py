"""Starts the processes of one training, one a GPU, on this machine; hears how they end.

The processes (ranks) run `cem.training.rank`. The job itself trains nothing then: it holds the state folder and listens
for requests to stop, tells the ranks, and goes on from the state that the first of them has left. When one fails, the
others are ended, and so is the job, with what that one said.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

import torch

import cem
from cem.config import Run
from cem.jobs.interruption import SAVED, Interrupted
from cem.jobs.state import FolderStore
from cem.training.distributed import RankError

_LOOK_S = 0.2  # between two looks at whether to stop
STOP = "stop\n"  # said to a rank
Process = subprocess.Popen[bytes]


@dataclass(frozen=True)
class Inputs:
    """What a training is made from. Without warm_model it is a warm-up."""

    run: Run
    data: Path
    warm_model: Path | None = None
    warm_history: Path | None = None
    mixture: Path | None = None

    @property
    def until(self) -> int:
        """Epochs after which it ends."""
        return self.run.training.epochs if self.warm_model else self.run.training.warmup_epochs

    def packed(self) -> dict[str, Any]:
        """As JSON values."""
        paths = {name: str(value) for name, value in vars(self).items() if isinstance(value, Path)}
        return {"run": self.run.model_dump(mode="json"), **paths}

    @staticmethod
    def unpacked(values: dict[str, Any]) -> "Inputs":
        """What `packed` gave."""
        paths = {name: Path(value) for name, value in values.items() if name != "run"}
        return Inputs(Run.model_validate(values["run"]), **paths)


def ranks_for(gpus: int) -> int:
    """Processes of a training whose job asked for so many GPUs: one each; one where the machine has none.

    Raises RankError when the job sees fewer than it asked for.
    """
    seen = torch.cuda.device_count()
    if gpus <= 1 or seen == 0:
        return 1
    if seen < gpus:
        raise RankError(
            f"expected the {gpus} GPUs that the job asked for (gpu={gpus}), found {seen}: CUDA_VISIBLE_DEVICES, or the "
            "machine, has no more. Ask for fewer, or for another partition."
        )
    return gpus


def train_in_ranks(inputs: Inputs, ranks: int, store: FolderStore) -> None:
    """Train by so many processes, and leave the state of the end in the store; one: leave it to this process.

    Raises Interrupted, the state saved, when asked to stop; RankError when a process fails.
    """
    if ranks == 1:
        return
    with tempfile.TemporaryDirectory(prefix="cem-ranks-") as folder:
        said = [Path(folder) / f"{rank}.log" for rank in range(ranks)]
        job = {"inputs": inputs.packed(), "ranks": ranks, "meeting": f"{folder}/meeting", "state": str(store.path)}
        with _started(job, said) as processes:
            _follow(processes, said, store)


def _follow(processes: Sequence[Process], said: Sequence[Path], store: FolderStore) -> None:
    """Wait until all have ended, hearing of them in the order in which they do: others fail because one did."""
    ended: SimpleQueue[tuple[int, int]] = SimpleQueue()

    def wait(rank: int) -> None:
        ended.put((rank, processes[rank].wait()))

    for rank in range(len(processes)):
        Thread(target=wait, args=(rank,), daemon=True).start()
    codes: dict[int, int] = {}
    told, saved = False, _saved(store)
    while len(codes) < len(processes):
        try:
            rank, code = ended.get(timeout=_LOOK_S)
            codes[rank] = code
        except Empty:
            pass
        if (now := _saved(store)) != saved:
            saved = now
            store.attempts.saved()
        for rank, code in codes.items():
            if code not in (0, SAVED):
                raise RankError(_failure(rank, code, len(processes), said[rank]))
        if store.asked_to_stop() and not told:
            told = True
            for process in processes:
                _say(process, STOP)
    if SAVED in codes.values():
        raise Interrupted


def _saved(store: FolderStore) -> int:
    """When the first rank saved the state, in ns; 0: not yet."""
    return store.path.stat().st_mtime_ns if store.path.exists() else 0


def _failure(rank: int, code: int, ranks: int, said: Path) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    words = said.read_text(encoding="utf-8", errors="replace").strip() if rank else "(above)"
    return (
        f"process {rank + 1} of the {ranks} of this training {how}, and the others were ended. The same job, run "
        f"again, goes on from the last saved state. It said: {words or 'nothing'}"
    )


def _say(process: Process, line: str) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it has ended, which `_follow` hears
        process.stdin.write(line.encode())


@contextmanager
def _started(job: Mapping[str, Any], said: Sequence[Path]) -> Iterator[list[Process]]:
    """A process a rank, told its job on its standard input; none is left afterwards.

    What the first one writes goes to the job's log, what others do to a file each.
    """
    command = [sys.executable, "-P", "-m", "cem.training.rank"]
    root = str(Path(cem.__file__).parents[1])
    env = os.environ | {"PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
    processes: list[Process] = []
    try:
        for rank, path in enumerate(said):
            with path.open("wb") as file, _deaf():
                errors = file if rank else None
                process = subprocess.Popen(  # noqa: S603 (its own program)
                    command, bufsize=0, stdin=subprocess.PIPE, stderr=errors, env=env
                )
            processes.append(process)
            _say(process, json.dumps({**job, "rank": rank}) + "\n")
        yield processes
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


@contextmanager
def _deaf() -> Iterator[None]:
    """Hold requests to stop back. A process that is started meanwhile never hears them: its job does, and tells it.

    Clusters and terminals send them to every process of a job.
    """
    former = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
