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


def test_the_folder_is_made_for_its_owner_alone_whatever_the_umask(tmp_path) -> None:
    old = os.umask(0)
    try:
        lock = HeadLock(tmp_path / "results" / "submitit" / "head.json")
        lock.acquire()
    finally:
        os.umask(old)
    assert lock.path.parent.stat().st_mode & 0o777 == 0o700
    lock.release()
    lock.acquire()  # the next head finds it in order
    lock.release()


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_that_others_may_write_to_is_refused_with_what_to_run(tmp_path, mode) -> None:
    folder = tmp_path / "with space" / "submitit"
    folder.mkdir(parents=True)
    folder.chmod(mode)
    lock = HeadLock(folder / "head.json")
    with pytest.raises(WorkflowError, match=f"found mode 0{mode:o}: .*chmod -R go-rwx") as refusal:
        lock.acquire()
    assert list(folder.iterdir()) == []
    command = str(refusal.value).split("run: ")[1].split(". If not")[0]
    subprocess.run(command, shell=True, check=True)
    lock.acquire()
    lock.release()


def test_results_that_a_group_may_write_to_are_no_obstacle(tmp_path) -> None:
    tmp_path.chmod(0o775)
    lock = HeadLock(tmp_path / "submitit" / "head.json")
    lock.acquire()
    lock.release()


def test_a_folder_of_another_user_is_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "submitit").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(WorkflowError, match=r"belong to this user \(12345\), found user .*folder of your own"):
        HeadLock(tmp_path / "submitit" / "head.json").acquire()
