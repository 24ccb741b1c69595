"""One tiny job, to see what cannot be seen from here: the folder, Python and the signals on a node."""

import fcntl
import json
import os
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_submitit.cluster.reasons import stuck_for
from snakemake_executor_plugin_submitit.cluster.send import RefusedError
from snakemake_executor_plugin_submitit.cluster.slurm import ask
from snakemake_executor_plugin_submitit.site.doctor.finding import Finding
from snakemake_executor_plugin_submitit.site.program import Program

_LATE_S = 60.0  # after its end: until what a node wrote must be seen here
_RUN_S = 300.0  # from its start: until the report must be there; importing torch from a busy file system takes long
_CLOCKS_S = 60
_NODE = "snakemake_executor_plugin_submitit.site.doctor.node"
_MINUTES, _MEMORY_MB = 10, 2000


@dataclass(frozen=True)
class Target:
    """Where the probe goes: a partition (empty: the default), with a GPU or not, and a profile's site settings."""

    partition: str
    gpu: bool
    settings: dict[str, str]


def check_node(folder: Path, target: Target, wait_s: float, program: Program) -> Iterator[Finding]:
    """Submit the probe, wait for it within bounds, and tell what it found. It is cancelled whatever happens."""
    with tempfile.TemporaryDirectory(prefix=f".{program.name}-doctor-", dir=folder, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        token = uuid.uuid4().hex
        (scratch / "token").write_text(token)
        (scratch / "job.sh").write_text(script(scratch, target))
        with (scratch / "lock").open("a") as lock:
            with suppress(OSError):  # told by the check of the folder
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            answer = ask(*command(folder, scratch, target, program))
            if not answer.ok:
                if limit := RefusedError(answer.why).limit:
                    advice = "Jobs wait for their turn with the head; for the probe, try again when fewer are there."
                    yield Finding("warning", "probe", f"a limit on submitted jobs is reached ({limit})", advice)
                    return
                install = f"{program.name} profile install slurm --account …"
                advice = f"Set account, partition, QoS and gres as your site has them: {install}"
                yield Finding("problem", "probe", f"sbatch refused it: {answer.why}", advice)
                return
            job = answer.out.strip().split(";")[0]
            with _cancelled(job):
                yield from _follow(job, scratch, token, target, wait_s, program)


def script(scratch: Path, target: Target) -> str:
    """What the job runs: as the executor's jobs, the site's setup, then Python as a step."""
    setup = _expanded(target.settings.get("setup", ""))
    python = _expanded(target.settings.get("python", "")) or shlex.quote(sys.executable)
    return f"#!/bin/bash\n{setup}\nsrun --unbuffered {python} -m {_NODE} {shlex.quote(str(scratch))}\n"


def command(folder: Path, scratch: Path, target: Target, program: Program) -> list[str]:
    """The words of sbatch."""
    words = ["sbatch", "--parsable", "--export=ALL", "--job-name", f"{program.name}-doctor", "--no-requeue"]
    words += ["--chdir", str(folder)]
    words += ["--nodes", "1", "--ntasks", "1", "--cpus-per-task", "1", "--mem", f"{_MEMORY_MB}M"]
    words += ["--time", str(_MINUTES), "--output", str(scratch / "log")]
    names = {name: target.settings.get(name, "") for name in ("account", "qos", "constraint", "wckey")}
    words += [f"--{name}={value}" for name, value in ({"partition": target.partition} | names).items() if value]
    gres = target.settings.get("gres", "")
    if target.gpu:
        words.append(f"--gres={gres.replace('{gpus}', '1')}" if gres else "--gpus-per-node=1")
    return [*words, str(scratch / "job.sh")]


def _expanded(text: str) -> str:
    """As Snakemake expands a profile's values."""
    return os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111 (no path: shell text)


@contextmanager
def _cancelled(job: str) -> Iterator[None]:
    try:
        yield
    finally:
        ask("scancel", job)


def _follow(job: str, scratch: Path, token: str, target: Target, wait_s: float, program: Program) -> Iterator[Finding]:
    state, reason = _wait_for_start(job, scratch, wait_s)
    if state == "PENDING":
        stuck = stuck_for(state, reason)
        advice = stuck.advice_for(job) if stuck else f"Wait longer: {program.name} doctor --wait 1800"
        place = f" in {target.partition}" if target.partition else ""
        text = f"job {job}{place} was still pending after {wait_s:.0f} s (reason: {reason})"
        yield Finding("problem" if stuck else "warning", "probe", text, f"Taken back. {advice}.")
        return
    first = _wait_for_report(job, scratch / "first.json", _RUN_S)
    if first is None:
        yield _silent(job, scratch)
        return
    yield from read_report(first, token, target, time.time())
    ask("scancel", "--signal=USR2", job)
    last = _wait_for_report(job, scratch / "last.json", _RUN_S)
    if last is not None and last.get("signal"):
        yield Finding("ok", "signal", "SIGUSR2 reaches a program in the job: it can save before its time limit")
    else:
        advice = "Trainings then save at the end of each epoch only; ask whether the site's srun passes signals on."
        yield Finding("warning", "signal", "SIGUSR2 did not reach the program in the job", advice)


def _wait_for_start(job: str, scratch: Path, wait_s: float) -> tuple[str, str]:
    """State and reason once it runs, has ended, or has been pending for too long."""
    deadline = time.monotonic() + wait_s
    while True:
        state, reason = _queue(job)
        if state not in ("PENDING", "CONFIGURING", "?") or (scratch / "first.json").exists():
            return ("RUNNING", "")
        if time.monotonic() > deadline:
            return ("PENDING", reason)
        time.sleep(1)


def _queue(job: str) -> tuple[str, str]:
    """A job's state and reason; `?` when SLURM is silent, GONE when it knows no such job."""
    answer = ask("squeue", "-h", "-j", job, "-o", "%T|%r")
    if not answer.ok:
        return ("GONE", "") if "Invalid job id" in answer.error else ("?", answer.why)
    state, _, reason = (answer.out.strip() or "GONE|").partition("|")
    return state, reason


def _wait_for_report(job: str, path: Path, seconds: float) -> dict[str, Any] | None:
    """A report, once it can be read here; None when the job has ended without."""
    deadline, late = time.monotonic() + seconds, False
    while time.monotonic() < deadline:
        list(path.parent.iterdir())  # makes a network file system look again
        if path.exists():
            return dict(json.loads(path.read_text(encoding="utf-8")))
        if not late and _queue(job)[0] not in ("RUNNING", "COMPLETING", "PENDING", "CONFIGURING", "?"):
            log_seen = (path.parent / "log").exists()
            deadline, late = min(deadline, time.monotonic() + (5 if log_seen else _LATE_S)), True
        time.sleep(1)
    return None


def _silent(job: str, scratch: Path) -> Finding:
    log = scratch / "log"
    text = log.read_text(errors="replace").strip() if log.exists() else ""
    if text:
        advice = "Correct submitit-setup and submitit-python in the profile, or install the project where nodes see it."
        end = "\n         ".join(text.splitlines()[-8:])
        return Finding("problem", "probe", f"job {job} failed on its node. The end of its log:\n         {end}", advice)
    advice = "Work on a file system that all nodes mount at the same path."
    return Finding("problem", "probe", f"job {job} ended and left nothing here: nodes do not see this folder", advice)


def read_report(first: dict[str, Any], token: str, target: Target, now: float) -> Iterator[Finding]:
    """What the probe saw on its node."""
    gpus = f"GPU {', '.join(first['gpus'])}" if first["gpus"] else "no GPU"
    yield Finding("ok", "probe", f"ran on {first['node']}, {gpus}, Python {first['python']}")
    if target.gpu and not first["gpus"]:
        advice = "Set submitit-gres as your site spells its GPUs."
        yield Finding("problem", "gpu there", "one was asked for, and CUDA_VISIBLE_DEVICES is not set", advice)
    if first["token"] != token:
        advice = "Work on a file system that all nodes mount at the same path."
        yield Finding("problem", "folder there", "it has the same path there, and other files in it", advice)
    else:
        yield Finding("ok", "folder there", "the same as here")
    if first["locked"] is not True:
        said = "" if first["locked"] is False else f" ({first['locked']})"
        advice = "Start no second head in this folder on another host: the lock would not keep it out."
        yield Finding("warning", "locks there", f"the node does not see a lock that is held here{said}", advice)
    else:
        yield Finding("ok", "locks there", "the node sees a lock that is held here")
    if "torch_error" in first:
        advice = "Correct submitit-setup and submitit-python in the profile, or reinstall for the nodes' hardware."
        yield Finding("problem", "torch there", f"it cannot be imported: {first['torch_error']}", advice)
        return
    if first["gpus"] and not first["cuda"]:
        advice = "Jobs will run on the CPU: check the driver, submitit-setup, and torch's CUDA version."
        yield Finding("warning", "torch there", f"{first['torch']}, does not see the GPU", advice)
    else:
        cuda = "sees the GPU" if first["cuda"] else "on the CPU"
        yield Finding("ok", "torch there", f"{first['torch']}, {cuda}")
    if abs(now - float(first["time"])) > _CLOCKS_S:
        yield Finding(
            "warning", "clocks", "the node's clock differs from this host's by minutes", "Times in logs will too."
        )
