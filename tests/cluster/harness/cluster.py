"""A SLURM cluster that tests may break: cluster.sh, with answers read."""

import contextlib
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest

from harness.interpreter import readable_python

CLUSTER_SH = Path(__file__).resolve().parents[1] / "cluster.sh"
ROOT = CLUSTER_SH.parents[2]
USER = "cemtest"  # who cluster.sh makes beside root
CANNOT = 77  # cluster.sh's exit code where no cluster can be
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld")  # in the order in which they start

Result = TypeVar("Result")


def wait_until(predicate: Callable[[], Result], timeout_s: float, what: str, why: Callable[[], str] = str) -> Result:
    """The first true value of the predicate. After the time: a failed test that says what was waited for."""
    end = time.monotonic() + timeout_s
    while not (value := predicate()):
        if time.monotonic() > end:
            pytest.fail(f"Waited {timeout_s:g} s for: {what}.\n{why()}", pytrace=False)
        time.sleep(0.1)
    return value


class Cluster:
    """One cluster in one folder. Every call is bounded; a call that fails, fails the test with what it printed."""

    def __init__(self, base: Path, accounting: bool = True, cpu_nodes: int = 2, gpu_nodes: int = 2) -> None:
        self.base, self.accounting = base, accounting
        self.nodes = [f"c{i + 1}" for i in range(cpu_nodes)] + [f"g{i + 1}" for i in range(gpu_nodes)]
        self.daemons = [name for name in DAEMONS if accounting or name not in ("mariadbd", "slurmdbd")]
        self._settings = {
            "BASE": str(base),
            "ACCT": "dbd" if accounting else "none",
            "CPU_NODES": str(cpu_nodes),
            "GPU_NODES": str(gpu_nodes),
            "USER_NAME": USER,
        }
        self._pythons: dict[str, tuple[str, dict[str, str]]] = {}

    # --- the whole ---
    def up(self, **settings: str) -> None:
        """Bring it up. Skips the test where no cluster can be, saying why. Settings: see cluster.sh."""
        self._settings |= settings
        done = self._script("up", timeout_s=600)
        if done.returncode == CANNOT:
            pytest.skip(done.stderr.strip().splitlines()[-1])
        if done.returncode:
            pytest.fail(f"cluster.sh up: exit code {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)

    def down(self, purge: bool = True) -> None:
        self._call("down", PURGE="1" if purge else "0")

    def restore(self) -> None:
        """As after `up`: every daemon and node works, no job is left."""
        if not self._whole():
            self.up()
        self.cancel_all()
        if self.held():  # by nobody: SLURM may miss the end of a job while its controller is away. It counts again.
            self.stop("slurmctld")
            self.start("slurmctld")
            self.wait_until(lambda: not self.held(), 30, "all that jobs held to be free")

    # --- what is broken ---
    def power_cut(self, node: str, quiet: bool = False) -> None:
        """The node and all that runs on it is gone. Quiet: SLURM has to find out by itself (half a minute)."""
        self._call("node-down", node, *["quiet"] * quiet)

    def power_on(self, node: str) -> None:
        self._call("node-up", node)

    def stop(self, daemon: str, now: bool = False) -> None:
        """Stop munged, mariadbd, slurmdbd or slurmctld. Now: kill -9."""
        self._call("stop", daemon, *["now"] * now)

    def start(self, daemon: str) -> None:
        """Start a daemon, or wake one that a test froze (SIGSTOP); returns when it answers."""
        self._call("start", daemon)

    @property
    def cost_source(self) -> str:
        """Where the costs of a job come from here."""
        return "accounting" if self.accounting else "job"

    def pid(self, daemon: str) -> int:
        return int((self.base / f"run/{daemon}.pid").read_text().split()[0])

    # --- what is asked ---
    @property
    def environment(self) -> dict[str, str]:
        """All a client needs. Nothing of the environment of the tests themselves."""
        return {
            "PATH": SYSTEM_PATH,
            "SLURM_CONF": str(self.base / "etc/slurm.conf"),
            "LANG": "C.UTF-8",
            "HOME": str(self.base),
        }

    def run(
        self,
        *argv: str | Path,
        check: bool = True,
        user: str | None = None,
        cwd: Path | str = "/",
        timeout_s: float = 60,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """What a command prints; its standard error is in the failure."""
        done = subprocess.run(
            [str(word) for word in argv],
            env={**self.environment, **(environment or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            **as_user(user),
        )
        if check and done.returncode:
            words = " ".join(map(str, argv))
            pytest.fail(f"{words}: exit code {done.returncode}\n{done.stdout}{done.stderr}", pytrace=False)
        return done.stdout

    def submit(self, command: str, *options: str, user: str | None = None, cwd: Path | str = "/tmp") -> str:
        """Sbatch: a shell command becomes a job. Its output goes nowhere unless the options say where."""
        output = "--output=/dev/null"
        return self.run("sbatch", "--parsable", output, *options, f"--wrap={command}", user=user, cwd=cwd).strip()

    def squeue(self, states: str = "") -> list[dict[str, str]]:
        """Live jobs, one an array element; states="all": those that ended lately, too."""
        fields = {"id": "%i", "name": "%j", "state": "%T", "node": "%N", "partition": "%P", "user": "%u"}
        output = "|".join(fields.values())
        lines = self.run("squeue", "-har", "-o", output, *([f"--states={states}"] if states else []))
        return [dict(zip(fields, line.split("|"), strict=True)) for line in lines.splitlines()]

    def state(self, job: str) -> str:
        """Of a job or an array element, live or ended lately; UNKNOWN if squeue has none of it."""
        return next((row["state"] for row in self.squeue("all") if row["id"] == job), "UNKNOWN")

    def sacct(self, *jobs: str, duplicates: bool = False) -> list[dict[str, str]]:
        """What the accounting knows of these jobs (default: of all); duplicates: of earlier starts of a job, too."""
        fields = {"id": "JobID", "name": "JobName", "state": "State", "exit": "ExitCode", "node": "NodeList"}
        options = [f"--jobs={','.join(jobs)}"] if jobs else ["--allusers", "--starttime=now-1days"]
        lines = self.run("sacct", "-XnP", *["-D"] * duplicates, *options, f"--format={','.join(fields.values())}")
        return [dict(zip(fields, line.split("|"), strict=True)) for line in lines.splitlines()]

    def held(self) -> list[str]:
        """The nodes of which SLURM gives a CPU or a GPU to a job."""
        nodes = self.run("scontrol", "show", "nodes", "-d", "-o").splitlines()
        held = (re.search(r"CPUAlloc=[1-9]|GresUsed=\S*?gpu(:\w+)?:[1-9]", node) for node in nodes)
        return [node.split()[0].removeprefix("NodeName=") for node, found in zip(nodes, held, strict=True) if found]

    def wait_until(self, predicate: Callable[[], Result], timeout_s: float, what: str) -> Result:
        return wait_until(predicate, timeout_s, what, self.situation)

    def wait_for_state(self, job: str, *states: str, timeout_s: float = 30) -> str:
        """The state, once it is one of these."""
        wanted = f"job {job} to be {' or '.join(states)}"
        return self.wait_until(lambda: (state := self.state(job)) in states and state, timeout_s, wanted)

    def wait_until_saved(self) -> None:
        """Until the controller has written what it knows now: a killed one forgets the jobs of its last seconds."""
        now, file = time.time(), self.base / "spool/ctld/job_state"

        def saved() -> bool:
            try:
                return file.stat().st_mtime > now
            except FileNotFoundError:  # for a moment while the controller puts the new one in its place
                return False

        self.wait_until(saved, 30, f"{file} to be written")

    def cancel_all(self) -> None:
        """Cancel every job of every user, and wait until none is left."""
        jobs = {row["id"].split("_")[0] for row in self.squeue()}
        if jobs:
            self.run("scancel", *jobs, check=False)
            self.wait_until(lambda: not self.squeue(), 60, "all jobs to be cancelled")

    def situation(self) -> str:
        """For messages: the queue, the nodes, where the logs are."""
        parts = []
        nodes = ["sinfo", "-N", "-O", "NodeList:8,Partition:10,StateLong:12,CPUsState:14,GresUsed:30"]
        for argv in (["squeue", "-ar", "--states=all", "--sort=-i"], nodes):
            try:
                lines = self.run(*argv, check=False, timeout_s=5).splitlines()
                parts.append("\n".join(lines[:16]))
            except subprocess.TimeoutExpired:
                parts.append(f"{argv[0]} does not answer")
        return "\n".join([*parts, f"Logs of the daemons: {self.base}/log"])

    def _whole(self) -> bool:
        """Nothing to repair: every process is there and not frozen, every node takes jobs."""
        for name in [*self.daemons, *(f"slurmd-{node}" for node in self.nodes)]:
            try:
                stat = Path(f"/proc/{self.pid(name)}/stat").read_text()
            except OSError:
                return False
            if stat.rpartition(")")[2].split()[0] in "ZTt":
                return False
        states = self.run("sinfo", "-hN", "-o", "%t").split()
        return all(state.rstrip("-") in ("idle", "mix", "alloc", "comp", "plnd") for state in states)

    # --- Python for somebody else ---
    def python(self, user: str | None = None) -> tuple[str, dict[str, str]]:
        """The interpreter with the project's packages for this user, and what it needs in the environment."""
        if user is None:
            return sys.executable, {}
        if user not in self._pythons:
            self._pythons[user] = readable_python(self.base / "python", lambda *argv: self._works(user, *argv))
        return self._pythons[user]

    def _works(self, user: str, *argv: str) -> bool:
        try:
            return subprocess.run(argv, capture_output=True, cwd="/", env={}, **as_user(user)).returncode == 0
        except PermissionError:
            return False

    # --- cluster.sh ---
    def _script(self, *arguments: str, timeout_s: float = 120, **settings: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self._settings, **settings}
        command = ["bash", str(CLUSTER_SH), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s)

    def _call(self, *arguments: str, **settings: str) -> None:
        done = self._script(*arguments, **settings)
        if done.returncode:
            pytest.fail(f"cluster.sh {' '.join(arguments)}:\n{done.stdout}{done.stderr}", pytrace=False)


def processes(text: str, where: str = "cmdline") -> list[int]:
    """Of this machine, its nodes included: those with this text in their command line (or in their "environ")."""
    found = []
    for path in Path("/proc").glob(f"[0-9]*/{where}"):
        with contextlib.suppress(OSError):
            if text in path.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(path.parent.name))
    return found


def as_user(user: str | None) -> dict[str, object]:
    """Arguments for subprocess: run as this user; umask and groups as after a login."""
    if user is None:
        return {}
    return {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": [], "umask": 0o022}


def hand_over(folder: Path, user: str | None) -> None:
    """Give a folder and all in it to this user (root, if none)."""
    for path, folders, files in os.walk(folder):
        for name in ["", *folders, *files]:
            # a job of a former head may still run, and takes its own files away
            with contextlib.suppress(FileNotFoundError):
                shutil.chown(Path(path, name), user or "root", user or "root")
