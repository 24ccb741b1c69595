"""One of the processes of a training: see `cem.training.ranks`, which starts it.

Its job is the first line of its standard input. A further line asks it to stop; the end of the input says that the
job's process is gone, which ends this one.
"""

import json
import os
import sys
import traceback
from collections.abc import Mapping
from datetime import timedelta
from io import FileIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from cem import CemError
from cem.jobs.interruption import SAVED, Interrupted
from cem.jobs.process import set_up_process
from cem.jobs.state import StateStore
from cem.storage.hdf5 import open_dataset
from cem.storage.tensors import Packed, load_checkpoint, save_checkpoint
from cem.training.distributed import Ranks, World
from cem.training.ranks import Inputs
from cem.training.stages import make_task

_PATIENCE = timedelta(minutes=30)  # for the slowest of the processes
_LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


class RankStore(StateStore):
    """The state of a training by several processes: all read it, the first one writes it and says when to stop."""

    def __init__(self, path: Path, world: World, stop: Event) -> None:
        self.path, self._world, self._stop = path, world, stop

    @property
    def place(self) -> str:
        return str(self.path)

    def load(self) -> Packed | None:
        """Raises CheckpointError when the file is damaged."""
        return load_checkpoint(self.path, "state") if self.path.exists() else None

    def save(self, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        if self._world.rank == 0:
            save_checkpoint(self.path, "state", tensors, header)

    def asked_to_stop(self) -> bool:
        return self._world.agree(self._stop.is_set())


def main() -> int:
    """Train; the exit code. Errors go to standard error."""
    orders = FileIO(sys.stdin.fileno(), closefd=False)  # unbuffered: a buffer's lock would outlive the thread below
    job, stop = json.loads(orders.readline()), Event()
    Thread(target=_listen, args=(orders, stop), daemon=True).start()
    try:
        _train(job, stop)
        dist.destroy_process_group()
    except Interrupted:
        dist.destroy_process_group()
        return SAVED
    except CemError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _train(job: dict[str, Any], stop: Event) -> None:
    inputs = Inputs.unpacked(job["inputs"])
    device, backend = set_up_process(inputs.run.training.threads), "gloo"
    if device.type == "cuda":
        device, backend = torch.device("cuda", job["rank"]), "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _LOOPBACK)  # all are on this machine, whatever its name resolves to
    meeting = Path(job["meeting"]).as_uri()
    dist.init_process_group(backend, init_method=meeting, rank=job["rank"], world_size=job["ranks"], timeout=_PATIENCE)
    world = Ranks(device)
    with open_dataset(inputs.data) as file:
        task = make_task(inputs, file, device, world)
        task.fit(RankStore(Path(job["state"]), world, stop), inputs.until)


def _listen(orders: FileIO, stop: Event) -> None:
    while orders.readline():
        stop.set()
    os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # at once: while Python ends, the others would hear of it first, and seem to have failed before
