"""A head: the `snakemake` somebody starts on the login node, to be watched, signalled and killed."""

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.cluster import ROOT, Cluster, as_user, processes, wait_until


class Head:
    """Snakemake in a folder, in a session of its own, with the cluster's environment; its output goes to a file."""

    def __init__(
        self,
        cluster: Cluster,
        folder: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        log: Path,
    ) -> None:
        python, needed = cluster.python(user)
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        home = {"HOME": str(folder / ".home"), "XDG_CACHE_HOME": str(folder / ".home/cache")}
        mark = uuid.uuid4().hex
        self._mark = f"CEM_HEAD={mark}"
        variables = {
            **cluster.environment,
            **home,
            "PYTHONPATH": path,
            "PYTHONUNBUFFERED": "1",
            "CEM_HEAD": mark,
            **needed,
        }
        self.log = log
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [python, "-m", "snakemake", *arguments],
                cwd=folder,
                env={**variables, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **as_user(user),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        return self._process.poll()

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.output().splitlines()[-lines:])

    def wait(self, timeout_s: float) -> int:
        """Its exit code: negative, if a signal ended it. Fails the test when it does not end in time."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"The head did not end in {timeout_s:g} s.", pytrace=False)

    def wait_for(self, text: str, timeout_s: float) -> None:
        """Until it has printed this. Fails the test when it ended without, or did not in time."""
        over = wait_until(
            lambda: "said" if text in self.output() else not self.alive and "ended", timeout_s, f"{text!r} of the head"
        )
        if over == "ended" and text not in self.output():
            pytest.fail(f"The head ended (exit code {self._process.returncode}) without {text!r}.", pytrace=False)

    def kill(self, signum: int = signal.SIGKILL, group: bool = False) -> None:
        """Send a signal to the head alone or, as Ctrl-C in a terminal does, to its process group."""
        if not group:
            self._process.send_signal(signum)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signum)

    def end(self) -> None:
        """Nothing of it is left: neither it, nor what it started, in whatever session."""
        self.kill(signal.SIGKILL, group=True)
        self._process.wait(10)
        for pid in processes(self._mark, "environ"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
