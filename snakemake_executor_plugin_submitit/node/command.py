"""What runs on the node: the inner Snakemake, as a child that the signals pass by, and the books of its attempts."""

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType

import submitit
from submitit.core.utils import UncompletedJobError

from snakemake_executor_plugin_submitit.books.events import Kind, append, has_ended_well
from snakemake_executor_plugin_submitit.books.records import RECORD
from snakemake_executor_plugin_submitit.node.sources import edited

_PR_SET_CHILD_SUBREAPER = 36  # orphans below this process become its children, so that it can wait for them
BEGINS = "submitit: here begins job"  # in a job's log, before what an attempt prints
STOPPED = 143  # this job was told to end, and leaves no verdict
_WATCH_S = 5.0  # at most, between two looks for who would save
_BEFORE_LIMIT_S = 10  # submitit's local controller kills at its limit what it started, and nothing below that


class Command(submitit.helpers.Checkpointable):
    """Runs a command line; on SIGUSR2 lets it save and end, then lets submitit requeue the job.

    A signal to a SLURM step reaches all of its processes. The inner Snakemake ignores SIGUSR2 (an ignored signal stays
    ignored through exec), the rule's script may catch it: save, and exit. What does not end then keeps running to the
    real limit, and what ends without having caught the signal ends as if there had been none. SIGTERM ends the attempt
    without a verdict, unless all was done (see `inner`): whoever sent it (a preemption, a requeue, scancel) has decided
    what becomes of the job.
    """

    # Also in jobs that were submitted before there were these.
    ended, asked, sources, listened = False, False, "", float("-inf")

    def __init__(self, command: str, folder: str, events: str, minutes: int, sources: str = ""):
        self.command, self.folder, self.events, self.limit_s = command, folder, events, 60 * minutes
        self.sources, self.listened = sources, float("-inf")
        self.pid, self.started, self.done, self.stopped, self.ended, self.asked = 0, 0.0, False, False, False, False

    def __call__(self) -> int:
        """Run until the end; 0, or SystemExit with the command's code."""
        # The signal came between the command's success and the end of this process, or SLURM requeued what was over.
        if self.done or has_ended_well(Path(self.events)):
            return 0
        if is_replaced(Path(self.events)):
            raise SystemExit("submitit: the head has cancelled this job, or sent it again as another: it does not run")
        self.started = time.time()
        job, node = submitit.JobEnvironment().job_id, os.environ.get("SLURMD_NODENAME", socket.gethostname())
        print(f"{BEGINS} {job} on {node}", flush=True)  # the log may hold earlier attempts
        append(
            Path(self.events),
            "start",
            node=node,
            job=job,
            restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            gpus=[gpu for gpu in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if gpu],
            edited=edited(Path(self.sources)) if self.sources else [],
        )
        signal.signal(signal.SIGTERM, self._stop)
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        environment = {name: value for name, value in os.environ.items() if name != "SNAKEMAKE_PROFILE"}
        command = ["/bin/bash", "-c", self.command]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])  # until there is a child to wait for
        child = subprocess.Popen(command, cwd=self.folder, env=environment, preexec_fn=ignore_request_to_save)
        self.pid = child.pid
        self._begin_to_watch()
        if self.stopped:  # before there was a child to be told
            child.send_signal(signal.SIGTERM)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
            code = child.wait()
        except UncompletedJobError as error:
            if not self.ended:  # saved too often, or out of time
                self._end("end", code=-1, why=str(error))
                raise
            code = child.wait()  # no reason to requeue: it has ended as it would have without the signal
        if code and self.stopped:
            with contextlib.suppress(ChildProcessError):
                while os.wait():  # a shell between Snakemake and its script is killed, but the script may be saving
                    pass
            self._end("stopped", code=code)
            os._exit(STOPPED)
        self.done = code == 0
        self._end("end", code=code, asked=self.asked)
        if code:
            raise SystemExit(code)  # no exception: its traceback would push the script's out of the log's end
        return 0

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:  # type: ignore[override]
        """Called in submitit's SIGUSR2 handler while `__call__` waits: let the script save. None: no use to requeue."""
        self.asked = True
        if not _is_on_slurm():
            self._pass_on(signal.SIGUSR2)
        heard, code = self._wait()
        if code is None:
            return None
        if code == 0 or self.stopped or not heard:
            self.ended = True
            return None
        self._end("saved")
        return submitit.helpers.DelayedSubmission(self)

    def _wait(self) -> tuple[bool, int | None]:
        """Wait for the child without reaping it: Popen.wait holds its lock in the interrupted frame.

        Whether anything in it catches the signal, and its code; None when its time was over first. A script that was
        only starting when the signal came, and ignored it, is told when it can hear. One that saves and ends at once
        may be gone before this process runs: a moment ago it was seen.
        """
        began, told = time.monotonic(), self._listeners()
        seen = began - self.listened < 2 * _WATCH_S
        while (status := os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
            for pid in self._listeners() - told:
                told.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR2)
            if not _is_on_slurm() and time.time() - self.started > self.limit_s - _BEFORE_LIMIT_S:
                self._pass_on(signal.SIGKILL)
                return seen or bool(told), None
            time.sleep(min(0.2 + (time.monotonic() - began) / 60, 2.0))
        return seen or bool(told), status.si_status

    def _begin_to_watch(self) -> None:
        """Note, on a thread that no signal goes to, when the child was last seen to catch SIGUSR2.

        The younger the job, the more often it looks: a script begins to listen within the first seconds, and may be
        asked to save, and be gone, in the next.
        """
        began = time.monotonic()

        def watch() -> None:
            while True:
                if self._listeners():
                    self.listened = time.monotonic()
                time.sleep(min(0.5 + (time.monotonic() - began) / 10, _WATCH_S))

        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        threading.Thread(target=watch, daemon=True).start()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _listeners(self) -> set[int]:
        """The child's processes that catch SIGUSR2."""
        return {pid for pid in descendants(self.pid) if _catches(pid, signal.SIGUSR2)}

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        if not _is_on_slurm():
            self._pass_on(signal.Signals(number))

    def _pass_on(self, number: signal.Signals) -> None:
        for pid in descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _end(self, event: Kind, **values: object) -> None:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        if used.ru_maxrss:  # else the child is not reaped, and what it used is unknown
            values |= {"cpu_s": used.ru_utime + used.ru_stime, "max_rss_mb": used.ru_maxrss / 1024}
        append(Path(self.events), event, **values, elapsed_s=time.time() - self.started)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "pid": 0, "stopped": False, "ended": False, "asked": False, "listened": float("-inf")}


def is_replaced(events: Path) -> bool:
    """Whether the books say of this member that its head gave it up, though SLURM starts it: requeued, or sent late.

    Two jobs must never write the same files. Where the record cannot be read, nothing is known, and the job runs.
    """
    try:
        members = json.loads((events.parent / RECORD).read_text(encoding="utf-8"))["members"]
        return members[int(events.stem.removeprefix("events-"))]["state"] in ("retried", "cancelled")
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _is_on_slurm() -> bool:
    """Whether a signal reaches all processes of the job, and SLURM ends what is out of time."""
    return os.environ.get("SUBMITIT_EXECUTOR") == "slurm"


def ignore_request_to_save() -> None:
    """Before exec: from its first moment a child ignores SIGUSR2, and stays so until a program catches it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])


def descendants(root: int) -> list[int]:
    """A process and all below it; none for 0."""
    if not root:
        return []
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found, ahead = [], [root]
    while ahead:
        pid = ahead.pop()
        found.append(pid)
        ahead += children.get(pid, [])
    return found


def _catches(pid: int, number: signal.Signals) -> bool:
    with contextlib.suppress(OSError):
        caught = re.search(r"^SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return caught is not None and bool(int(caught.group(1), 16) >> (number - 1) & 1)
    return False
