"""The cluster `local`: submitit's local executor on this machine, asked the questions that SLURM is asked."""

import contextlib
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.local.local import LocalJob

from snakemake_executor_plugin_submitit.cluster.slurm import Cost, Ending, Past, Row, Rows
from snakemake_executor_plugin_submitit.node.command import descendants

_CONTROLLER = "submitit.local._local"
_KILL_AFTER_S = 10.0


class DetachedLocalExecutor(submitit.LocalExecutor):
    """submitit's local executor, whose jobs outlive this process and its terminal, with chosen GPUs."""

    started: subprocess.Popen[bytes]

    def _submit_command(self, command: str) -> LocalJob[Any]:
        parameters = self.parameters
        environment = os.environ | {
            "SUBMITIT_LOCAL_NTASKS": "1",
            "SUBMITIT_LOCAL_COMMAND": command,
            "SUBMITIT_LOCAL_TIMEOUT_S": str(60 * parameters["timeout_min"]),
            "SUBMITIT_LOCAL_SIGNAL_DELAY_S": str(parameters["signal_delay_s"]),
            "SUBMITIT_LOCAL_NODEID": "0",
            "SUBMITIT_LOCAL_JOB_NUM_NODES": "1",
            "SUBMITIT_STDERR_TO_STDOUT": "1",
            "SUBMITIT_EXECUTOR": "local",
            "SUBMITIT_LOCAL_WITH_SHELL": "",
            "CUDA_VISIBLE_DEVICES": ",".join(map(str, parameters["visible_gpus"])),
        }
        interpreter = shlex.split(self.python)[0]
        # The thread that submits has signals blocked, and a child would inherit that.
        mask = signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            self.started = subprocess.Popen(
                [interpreter, "-m", _CONTROLLER, str(self.folder)], env=environment, start_new_session=True
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return LocalJob(folder=self.folder, job_id=str(self.started.pid), tasks=[0], process=self.started)


class Local:
    """What runs here; a job's id is the pid of its controller."""

    accounting = False
    max_array_size = 1

    def __init__(self, root: Path, gpus: Sequence[str]) -> None:
        self.root, self.gpus = root.absolute(), list(gpus)
        self.cpus = len(os.sched_getaffinity(0))
        self.children: list[subprocess.Popen[bytes]] = []

    def queue(self) -> Rows | None:
        """The controllers that are alive, found by their command lines."""
        self.children = [child for child in self.children if child.poll() is None]  # reaps the others
        rows = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().decode(errors="replace").split("\0")
                if _CONTROLLER in words and Path(words[-2]).is_relative_to(self.root):
                    rows[path.parent.name] = Row("RUNNING", Path(words[-2]).name, "")
        return rows

    def past(self, ids: Sequence[str]) -> dict[str, Past] | None:
        """There is no accounting."""
        return None

    def costs(self, job: str) -> list[Cost] | None:
        """There is no accounting."""
        return None

    def known(self, job: str, name: str) -> str | None:
        """The state of one job."""
        rows = self.queue() or {}
        return rows[job].state if job in rows and rows[job].name == name else "gone"

    def ending(self, job: str) -> Ending | None:
        """Nobody remembers it."""
        return None

    def cancel(self, ids: Iterable[str]) -> bool:
        """End jobs and all below them: asked first, killed after some seconds."""
        alive = self.queue() or {}
        pids = [pid for job in ids if job in alive for pid in descendants(int(job))]
        _signal(pids, signal.SIGTERM)
        deadline = time.monotonic() + _KILL_AFTER_S
        while time.monotonic() < deadline and any(_exists(pid) for pid in pids):
            self.children = [child for child in self.children if child.poll() is None]
            time.sleep(0.1)
        _signal([late for pid in pids if _exists(pid) for late in descendants(pid)], signal.SIGKILL)
        return True

    def order(self, ids: Iterable[str], names: Iterable[str]) -> str:
        """The command with which a person cancels these. A job is never without an id here."""
        return " ".join(["kill", *sorted(ids)])

    def start(self, executor: DetachedLocalExecutor, command: Any) -> str:
        """Start one job and keep its handle."""
        job = executor.submit(command)
        self.children.append(executor.started)
        return str(job.job_id)


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _exists(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
