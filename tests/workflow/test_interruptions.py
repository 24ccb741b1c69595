"""A study on one machine that is interrupted: the same command again ends with the bytes of an undisturbed one."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "name": "tiny",
    "dataset": {"source": "synthetic", "images": 3000, "classes": 4, "channels": 1},
    "model": {"width": 0.05, "bottleneck": "noRELU_C4S1"},
    "training": {"epochs": 12, "warmup_epochs": 1, "batch_size": 32, "lr": 0.02},
    "attacks": [{"kind": "mean_image"}],
}
RUN = "results/tiny/runs/*/*/none/*"


class Study:
    """A study of one run, of which the training is wanted; `output` is what its last head printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.head: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"XDG_CACHE_HOME": str(self.folder / "cache"), "PYTHONPATH": path}
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--profile", str(ROOT / "profiles/local"), "--cores", "2", *arguments]
        with (self.folder / "head.log").open("wb") as log:
            self.head = subprocess.Popen(
                command, cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        return self.head

    def run(self, *arguments: str) -> None:
        assert self.start(*arguments).wait(300) == 0, self.output

    @property
    def output(self) -> str:
        return (self.folder / "head.log").read_text(errors="replace")

    @property
    def training(self) -> int | None:
        """The pid of the training, once it has saved an epoch."""
        if not list(self.folder.glob("results/.state/*/state.safetensors")):
            return None
        for stderr in Path("/proc").glob("[0-9]*/fd/2"):
            try:
                if stderr.readlink().match(f"{self.folder}/logs/tiny/*/*/none/*/train.log"):
                    return int(stderr.parts[2])
            except OSError:
                continue
        return None

    def wait_for_training(self) -> int:
        deadline = time.monotonic() + 120
        while (pid := self.training) is None:
            assert self.head is not None
            assert self.head.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.05)
        return pid

    def only(self, pattern: str) -> Path:
        (found,) = self.folder.glob(pattern)
        return found

    def check_nothing_is_half_written(self) -> None:
        """Only finished files are where results are looked for."""
        files = [path for path in self.folder.glob("results/**/*") if path.is_file() and ".state" not in path.parts]
        assert {path.name for path in files if "runs" in path.parts} == set()
        assert [path for path in files if path.name.startswith(".") or path.suffix == ".part"] == []

    def check_equal(self, other: "Study") -> None:
        """The same bytes, except for the time that it took; and no state is left."""
        mine, theirs = self.only(f"{RUN}/model.safetensors"), other.only(f"{RUN}/model.safetensors")
        assert mine.read_bytes() == theirs.read_bytes()
        counted = ["seconds", "images_per_s", "peak_memory_mb"]
        histories = [pd.read_csv(path.with_name("history.csv"), dtype=str) for path in (mine, theirs)]
        pd.testing.assert_frame_equal(*(history.drop(columns=counted) for history in histories))
        assert not list(self.folder.glob("results/.state/*"))
        assert not list(self.folder.glob("results/**/*.part"))


@pytest.fixture(scope="module")
def warmed_up(tmp_path_factory) -> Study:
    """A study whose training is what comes next."""
    study = Study(tmp_path_factory.mktemp("study"))
    (study.folder / "config").mkdir()
    (study.folder / "config/config.yaml").write_text(yaml.safe_dump(SETTINGS))
    study.run("--until", "warm_up")
    return study


def copy(study: Study, folder: Path) -> Study:
    return Study(Path(shutil.copytree(study.folder, folder, copy_function=shutil.copy2)))


@pytest.fixture(scope="module")
def undisturbed(warmed_up, tmp_path_factory) -> Study:
    study = copy(warmed_up, tmp_path_factory.mktemp("undisturbed") / "study")
    study.run("--until", "train")
    return study


@pytest.fixture
def study(warmed_up, tmp_path) -> Iterator[Study]:
    made = copy(warmed_up, tmp_path / "study")
    yield made
    if made.head is not None and made.head.poll() is None:
        os.killpg(made.head.pid, signal.SIGKILL)
        made.head.wait()


def kill_the_training(study: Study, training: int) -> None:
    os.kill(training, signal.SIGKILL)


def end_the_training(study: Study, training: int) -> None:
    os.kill(training, signal.SIGTERM)


def end_everything(study: Study, training: int) -> None:
    """As a machine does that shuts down."""
    assert study.head is not None
    os.killpg(study.head.pid, signal.SIGTERM)


def press_ctrl_c(study: Study, training: int) -> None:
    """A terminal sends it to all of its processes."""
    assert study.head is not None
    os.killpg(study.head.pid, signal.SIGINT)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (kill_the_training, "died with <Signals.SIGKILL: 9>"),
        (end_the_training, "run the same again to go on"),
        (end_everything, "run the same again to go on"),
        (press_ctrl_c, "run the same again to go on"),
    ],
)
def test_a_training_that_is_broken_off_goes_on(
    study, undisturbed, fault: Callable[[Study, int], None], said: str
) -> None:
    head = study.start("--until", "train")
    fault(study, study.wait_for_training())
    assert head.wait(120) != 0, study.output
    assert said in study.output
    assert "Traceback" not in study.output
    study.check_nothing_is_half_written()
    study.run("--until", "train")
    assert "going on from" in study.only("logs/tiny/*/*/none/*/train.log").read_text()
    study.check_equal(undisturbed)


def test_snakemake_that_is_told_to_end_lets_its_training_finish(study, undisturbed) -> None:
    head = study.start("--until", "train")
    study.wait_for_training()
    head.send_signal(signal.SIGTERM)
    head.wait(120)
    study.run("--until", "train")
    study.check_equal(undisturbed)


@pytest.fixture
def small_disk(study) -> Iterator[Callable[[], None]]:
    """The study's results on a disk of their own, which a call fills up."""
    results = study.folder / "results"
    kept = results.rename(study.folder / "kept")
    results.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(results)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        # Only root may mount the small disk that is filled here; filling the machine's own would harm others.
        pytest.skip("a small disk can be mounted by root alone")

    def fill() -> None:
        """Except for a few kB, in which no state has room."""
        free = os.statvfs(results)
        (results / "ballast").write_bytes(bytes((free.f_bavail - 4) * free.f_frsize))

    try:
        shutil.copytree(kept, results, copy_function=shutil.copy2, dirs_exist_ok=True)
        yield fill
    finally:
        if study.head is not None and study.head.poll() is None:
            os.killpg(study.head.pid, signal.SIGKILL)
        subprocess.run(["umount", "--lazy", str(results)], check=True)


def test_a_training_on_a_full_disk_says_so_and_goes_on_when_there_is_room(study, undisturbed, small_disk) -> None:
    head = study.start("--until", "train")
    study.wait_for_training()
    small_disk()
    assert head.wait(120) == 1
    assert "No space left on device. Free or choose another disk, and run again." in study.output
    study.only("results/ballast").unlink()
    study.check_nothing_is_half_written()
    study.run("--until", "train")
    assert "going on from" in study.only("logs/tiny/*/*/none/*/train.log").read_text()
    study.check_equal(undisturbed)
