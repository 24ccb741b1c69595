"""What the probe runs on a node: `python -m … FOLDER`. It reports in FOLDER, then waits for SIGUSR2."""

import json
import os
import platform
import signal
import socket
import sys
import time
from pathlib import Path

from snakemake_executor_plugin_submitit.site.doctor.place import is_locked

SIGNAL_WAIT_S = 60


def main(folder: Path) -> None:
    """Write first.json: what is here; then last.json: whether the signal came."""
    came = []
    signal.signal(signal.SIGUSR2, lambda number, _: came.append(number))
    _write(folder / "first.json", _look(folder))
    deadline = time.monotonic() + SIGNAL_WAIT_S
    while not came and time.monotonic() < deadline:
        time.sleep(0.1)
    _write(folder / "last.json", {"signal": bool(came)})


def _look(folder: Path) -> dict[str, object]:
    found: dict[str, object] = {
        "node": os.environ.get("SLURMD_NODENAME", socket.gethostname()),
        "python": platform.python_version(),
        "gpus": [gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu],
        "token": (folder / "token").read_text(),
        "time": time.time(),
    }
    try:
        found["locked"] = is_locked(folder / "lock")
    except OSError as error:
        found["locked"] = str(error)
    try:
        import torch

        found |= {"torch": torch.__version__, "cuda": torch.cuda.is_available()}
    except Exception as error:  # whatever it is, it is what a job would meet
        found["torch_error"] = f"{type(error).__name__}: {error}"
    return found


def _write(path: Path, content: dict[str, object]) -> None:
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
