"""Every start of a job is on record: how it ended, how long it lived, and what of its work was lost."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from cem.jobs.attempts import FILE, HEARTBEAT, Attempts, AttemptsError
from cem.jobs.interruption import Interrupted, resumable
from cem.jobs.state import FolderStore, StateStore


def start(folder) -> Attempts:
    return Attempts(folder, "state*", "cpu")


def age(folder, name: str, seconds: float) -> None:
    """Let a file have been written so long ago."""
    (folder / name).touch()
    then = time.time() - seconds
    os.utime(folder / name, (then, then))


def begun(folder, seconds: float) -> None:
    """Let the present attempt have begun so long ago."""
    age(folder, FILE, seconds)


def test_what_a_killed_attempt_did_after_its_last_save_is_lost(tmp_path) -> None:
    start(tmp_path)
    begun(tmp_path, 100)
    age(tmp_path, "state", 40)
    age(tmp_path, HEARTBEAT, 10)
    killed, present = start(tmp_path).all
    assert (killed.ended, present.ended) == ("killed", "")
    assert killed.seconds == pytest.approx(90, abs=1)
    assert killed.lost_seconds == pytest.approx(30, abs=1)


def test_what_an_attempt_used_is_told_and_of_a_killed_one_what_is_known(tmp_path) -> None:
    Attempts(tmp_path, "state*", "gpu", gpus=2)
    begun(tmp_path, 100)
    age(tmp_path, HEARTBEAT, 10)
    attempts = Attempts(tmp_path, "state*", "gpu", gpus=3)
    killed, present = attempts.end("saved")
    assert killed.gpu_seconds == pytest.approx(180, abs=2)
    assert (killed.cpu_seconds, killed.max_rss_mb) == (None, None)  # unavailable, not 0
    assert present.gpu_seconds == pytest.approx(3 * present.seconds)
    assert present.cpu_seconds > 0
    assert present.max_rss_mb > 1


def test_what_its_process_did_before_is_not_counted(tmp_path, monkeypatch) -> None:
    used = iter([(100.0, 50.0), (103.0, 60.0)])  # CPU seconds and memory of the process: at its start, at its end
    monkeypatch.setattr("cem.jobs.attempts._used", lambda: next(used))
    (attempt,) = start(tmp_path).end("done")
    assert (attempt.cpu_seconds, attempt.max_rss_mb) == (3, 60)


def test_on_a_cpu_no_gpu_was_used(tmp_path) -> None:
    (attempt,) = start(tmp_path).end("done")
    assert attempt.gpu_seconds == 0


def test_an_attempt_that_never_saved_lost_everything(tmp_path) -> None:
    age(tmp_path, "state", 500)  # of an earlier attempt
    start(tmp_path)
    begun(tmp_path, 100)
    age(tmp_path, HEARTBEAT, 10)
    killed = start(tmp_path).all[0]
    assert killed.lost_seconds == killed.seconds == pytest.approx(90, abs=1)


def test_a_save_is_a_sign_of_life(tmp_path) -> None:
    start(tmp_path)
    begun(tmp_path, 100)
    age(tmp_path, HEARTBEAT, 60)
    age(tmp_path, "state", 20)  # a long validation came between
    killed = start(tmp_path).all[0]
    assert (killed.seconds, killed.lost_seconds) == (pytest.approx(80, abs=1), 0)


def test_without_a_state_all_earlier_work_is_lost(tmp_path) -> None:
    start(tmp_path)
    begun(tmp_path, 100)
    age(tmp_path, "state", 40)
    start(tmp_path)
    (tmp_path / "state").unlink()
    attempts = start(tmp_path)
    assert attempts.all[0].seconds == pytest.approx(60, abs=1)
    assert attempts.kept_seconds == 0


def test_who_was_done_but_wrote_no_result_was_killed(tmp_path) -> None:
    start(tmp_path).end("done")
    assert [one.ended for one in start(tmp_path).all] == ["killed", ""]


def test_a_damaged_record_is_named(tmp_path) -> None:
    (tmp_path / FILE).write_text("[{")
    with pytest.raises(AttemptsError, match=r"attempts\.json: expected a list.*Delete it and run again"):
        start(tmp_path)


def test_a_heartbeat_that_cannot_be_written_ends_no_job(tmp_path, capsys) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    attempts = start(folder)
    (folder / FILE).unlink()
    folder.rmdir()
    attempts.beat()
    assert "cannot write it" in capsys.readouterr().err


def test_one_that_left_no_sign_of_life_did_nothing_that_is_known(tmp_path) -> None:
    start(tmp_path)
    assert start(tmp_path).all[0].seconds == 0


def test_a_heartbeat_is_not_written_with_every_batch(tmp_path) -> None:
    attempts = start(tmp_path)
    attempts.beat()
    age(tmp_path, HEARTBEAT, 60)
    attempts.beat()
    assert time.time() - (tmp_path / HEARTBEAT).stat().st_mtime > 50


@pytest.mark.parametrize(("error", "how"), [(Interrupted(), "saved"), (ValueError("its own fault"), "failed")])
def test_the_end_of_a_block_is_the_end_of_the_attempt(tmp_path, error, how) -> None:
    folder = tmp_path / "state"

    def work() -> None:
        with resumable(folder, "cpu") as store:
            store.save({}, {"step": 3})
            raise error

    with pytest.raises(type(error)):
        work()
    with resumable(folder, "cpu") as store:
        saved = store.load()
        assert saved is not None
        assert saved[1]["step"] == 3
        attempts = store.end()
        assert [attempt.ended for attempt in attempts] == [how, "done"]
        assert attempts[-1].lost_seconds == 0
    assert not folder.exists()


def test_kept_work_is_that_of_earlier_attempts_less_what_they_lost(tmp_path) -> None:
    start(tmp_path)
    begun(tmp_path, 100)
    age(tmp_path, "state", 40)
    age(tmp_path, HEARTBEAT, 10)
    store = FolderStore(tmp_path, start(tmp_path))
    assert store.earlier_seconds == pytest.approx(60, abs=1)
    assert StateStore().earlier_seconds == 0


def test_a_signal_after_the_work_does_not_end_the_process_without_state(tmp_path, monkeypatch) -> None:
    seen, remove = [], shutil.rmtree

    def late(folder) -> None:
        for number in (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT):
            os.kill(os.getpid(), number)
        remove(folder)

    monkeypatch.setattr(shutil, "rmtree", late)
    numbers = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
    former = [signal.signal(number, lambda number, _frame: seen.append(number)) for number in numbers]
    try:
        with resumable(tmp_path / "state", "cpu") as store:
            store.save({}, {"step": 3})
        assert not seen
        os.kill(os.getpid(), signal.SIGTERM)
        assert seen == [signal.SIGTERM]  # as before, once it is over
    finally:
        for number, handler in zip(numbers, former, strict=True):
            signal.signal(number, handler)


def test_a_signal_at_the_very_end_does_not_fail_a_script(tmp_path) -> None:
    script = f"import os, signal\nfrom cem.jobs.script import job\nwith job({str(tmp_path / 'log')!r}):\n    pass\n"
    done = subprocess.run([sys.executable, "-c", script + "os.kill(os.getpid(), signal.SIGTERM)"], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_asks_to_stop_and_the_second_ends_a_script_at_once_without_a_traceback(tmp_path, times) -> None:
    script = (
        f"import os, signal\nfrom pathlib import Path\nfrom cem.jobs.script import job\n"
        f"with job({str(tmp_path / 'log')!r}):\n"
        f"    from cem.jobs.interruption import resumable\n"
        f"    with resumable(Path({str(tmp_path / 'state')!r}), 'cpu') as store:\n"
        f"        for _ in range({times}):\n            os.kill(os.getpid(), signal.SIGINT)\n"
        f"        assert store.asked_to_stop()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    said = (tmp_path / "log").read_text()
    assert (done.returncode, said) == (
        (0, "done\n") if times == 1 else (1, "stopped by Ctrl-C: run the same command again to go on\n")
    )
