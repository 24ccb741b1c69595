"""One tiny job, to see what cannot be seen from here: the folder, Python and the signals on a node."""

import fcntl
import json
import os
import re
import shlex
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from submitit.core.utils import JobPaths

from snakemake_executor_plugin_submitit.cluster.reasons import stuck_for
from snakemake_executor_plugin_submitit.cluster.resources import make_request
from snakemake_executor_plugin_submitit.cluster.send import refusal, script_of
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import ask
from snakemake_executor_plugin_submitit.site.doctor.finding import Finding
from snakemake_executor_plugin_submitit.site.program import Program

_LATE_S = 60.0  # after its end: until what a node wrote must be seen here
_RUN_S = 300.0  # from its start: until the report must be there; importing torch from a busy file system takes long
_CLOCKS_S = 60
_NODE = "snakemake_executor_plugin_submitit.site.doctor.node"
_MINUTES, _MEMORY_MB = 10, 2000
_SETUP = "setup"  # the file in which the lines of the setup that failed are noted
_COMPLAINT = re.compile(r"(?i)error|not found|unable to|cannot|no such")


@dataclass(frozen=True)
class Target:
    """Where the probe goes: a partition (empty: the default), with a GPU or not, and a profile's site settings."""

    partition: str
    gpu: bool
    settings: dict[str, str]

    @property
    def without_gpus(self) -> bool:
        """Whether the profile says so."""
        return self.settings.get("no-gpu") == "true"

    @property
    def executor(self) -> ExecutorSettings:
        """What the executor would have of the profile."""
        texts: dict[str, Any] = {
            name.replace("-", "_"): _expanded(text) for name, text in self.settings.items() if name != "no-gpu"
        }
        return replace(ExecutorSettings(no_gpu=self.without_gpus), **texts)


def check_node(folder: Path, target: Target, wait_s: float, program: Program) -> Iterator[Finding]:
    """Submit the probe, wait for it within bounds, and tell what it found. It is cancelled whatever happens."""
    with tempfile.TemporaryDirectory(prefix=f".{program.name}-doctor-", dir=folder, ignore_cleanup_errors=True) as name:
        scratch = Path(name)
        token = uuid.uuid4().hex
        (scratch / "token").write_text(token)
        try:
            (scratch / "job.sh").write_text(script(scratch, target, program))
        except WorkflowError as error:
            yield Finding("problem", "probe", f"no job can be sent: {error}", "Correct it, and run this again.")
            return
        with (scratch / "lock").open("a") as lock:
            with suppress(OSError):  # told by the check of the folder
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            answer = ask("sbatch", "--parsable", str(scratch / "job.sh"))
            if not answer.ok:
                refused = refusal(answer)
                if limit := refused.limit:
                    advice = "Jobs wait for their turn with the head; for the probe, try again when fewer are there."
                    yield Finding("warning", "probe", f"a limit on submitted jobs is reached ({limit})", advice)
                    return
                install = f"{program.name} profile install slurm --account …"
                advice = f"Set account, partition, QoS and gres as your site has them: {install}"
                yield Finding("problem", "probe", f"sbatch refused it: {refused}", advice)
                return
            job = answer.out.strip().split(";")[0]
            with _cancelled(job):
                yield from _follow(job, scratch, token, target, wait_s, program)


def script(scratch: Path, target: Target, program: Program) -> str:
    """What is given to sbatch: the options of a job, the site's setup, then Python as a step.

    Raises WorkflowError for what no job could be sent with.
    """
    settings = target.executor
    setup = settings.setup.splitlines()
    if setup:  # a job goes on after a line that fails: those are noted
        noted = f"noted={shlex.quote(str(scratch / _SETUP))}"
        trap = """trap 'echo "$BASH_COMMAND (exit code $?)" >>"$noted"' ERR"""
        setup = [noted, trap, *setup, "trap - ERR"]
    request = make_request("probe", _asked(target), 1, settings)
    name = f"{program.name}-doctor"
    return script_of(scratch, name, "doctor", request, settings, setup=setup, module=_NODE)


def _asked(target: Target) -> dict[str, object]:
    """The probe's resources, as a rule says its own."""
    named = {"slurm_partition": target.partition} if target.partition else {}
    return {"mem_mb": _MEMORY_MB, "runtime": _MINUTES, "gpu": int(target.gpu), **named}


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
    yield from _check_setup(scratch, log_of(scratch, job), target)
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


def log_of(scratch: Path, job: str) -> str:
    """What the job has printed; empty when there is no log."""
    path = JobPaths(scratch, job).stdout
    return path.read_text(errors="replace").strip() if path.exists() else ""


def _check_setup(scratch: Path, log: str, target: Target) -> Iterator[Finding]:
    """Whether the lines that the site's jobs begin with do what they should."""
    if not target.settings.get("setup"):
        return
    noted = scratch / _SETUP
    failed = noted.read_text(errors="replace").splitlines() if noted.exists() else []
    said = [line for line in log.splitlines() if _COMPLAINT.search(line)]  # some `module` fails with exit code 0
    shown = "\n         ".join([*failed, *said[:8]])
    advice = "Correct submitit-setup in the profile: jobs begin with the same lines."
    if failed:
        yield Finding("problem", "setup there", f"these lines failed, and what was printed:\n         {shown}", advice)
    elif said:
        yield Finding("warning", "setup there", f"it printed:\n         {shown}", advice)
    else:
        yield Finding("ok", "setup there", "its lines ran")


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
            log_seen = JobPaths(path.parent, job).stdout.exists()
            deadline, late = min(deadline, time.monotonic() + (5 if log_seen else _LATE_S)), True
        time.sleep(1)
    return None


def _silent(job: str, scratch: Path) -> Finding:
    text = log_of(scratch, job)
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
