"""One head in a folder: the second learns of the first, a dead one is no obstacle."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.head.lock import HeadLock

HOLD = """
import sys
from pathlib import Path
from snakemake_executor_plugin_submitit.head.lock import HeadLock
lock = HeadLock(Path(sys.argv[1]))
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "head.json")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()
        process.communicate()


def test_a_second_head_is_told_who_the_first_is(tmp_path, other) -> None:
    with pytest.raises(WorkflowError, match=rf"found another: process {other.pid} on .*Wait for it, stop it"):
        HeadLock(tmp_path / "head.json").acquire()


def test_a_dead_heads_lock_is_free(tmp_path, other) -> None:
    other.kill()
    other.wait()
    lock = HeadLock(tmp_path / "head.json")
    lock.acquire()
    assert json.loads((tmp_path / "head.json").read_text())["pid"] == os.getpid()
    lock.release()
    lock.acquire()
    lock.release()


def no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def test_without_locks_a_dead_head_of_this_host_is_known_by_its_pid(tmp_path, other, monkeypatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(WorkflowError, match=rf"process {other.pid} .*remove .*head.json.*No locks available"):
        HeadLock(tmp_path / "head.json").acquire()
    other.kill()
    other.wait()
    lock = HeadLock(tmp_path / "head.json")
    lock.acquire()
    lock.release()


def test_without_locks_a_head_of_another_host_stands(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = tmp_path / "head.json"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "born": "1", "since": "2026-01-01"}))
    with pytest.raises(WorkflowError, match="process 1 on elsewhere, since 2026-01-01"):
        HeadLock(path).acquire()
