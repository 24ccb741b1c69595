"""The executor without SLURM (`--submitit-cluster local`): the same books, adoption, saving and cancelling."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROFILE = {
    "executor": "submitit",
    "submitit-cluster": "local",
    "submitit-local-gpus": "0,1",
    "submitit-poll": 0.5,
    "submitit-backoff": 0.5,
    "submitit-lost-after": 2,
    "jobs": 20,
    "local-cores": 1,
    "rerun-incomplete": True,
    "nolock": True,
    "latency-wait": 5,
}


class Study:
    """The small workflow of tests/cluster, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heads: list[subprocess.Popen[bytes]] = []
        shutil.copytree(ROOT / "tests/cluster/workflow", folder)

    def start(self, runs: dict, *arguments: str, **profile: object) -> subprocess.Popen[bytes]:
        (self.folder / "runs.json").write_text(json.dumps(runs))
        (self.folder / "profile").mkdir(exist_ok=True)
        (self.folder / "profile/config.yaml").write_text(yaml.safe_dump(PROFILE | profile))
        environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(self.folder / "cache")}
        with (self.folder / f"head{len(self.heads)}.log").open("wb") as log:
            head = subprocess.Popen(
                [sys.executable, "-m", "snakemake", "--profile", "profile", *arguments],
                cwd=self.folder, env=environment, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.heads.append(head)
        return head

    def output(self) -> str:
        return (self.folder / f"head{len(self.heads) - 1}.log").read_text(errors="replace")

    def starts(self) -> list[dict]:
        path = self.folder / "starts.log"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def model(self, run: str) -> dict:
        return json.loads((self.folder / f"results/{run}/model.json").read_text())

    def processes(self) -> list[int]:
        """Controllers of this study's jobs that are alive."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_bytes().decode(errors="replace")
            except OSError:
                continue
            if "submitit.local._local" in text and str(self.folder) in text:
                found.append(int(path.parent.name))
        return found

    def until(self, what: Callable[[], object], timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not what():
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.1)

    def end(self, head: subprocess.Popen[bytes], code: int = 0) -> None:
        assert head.wait(120) == code, self.output()


@pytest.fixture
def study(tmp_path) -> Iterator[Study]:
    made = Study(tmp_path / "it's here")
    yield made
    for pid in [*(head.pid for head in made.heads if head.poll() is None), *made.processes()]:
        os.killpg(pid, signal.SIGKILL)
    for head in made.heads:
        head.wait()


def test_a_study_runs_and_gpus_are_shared_out(study) -> None:
    study.end(study.start({name: {"epochs": 2, "epoch_s": 0.3} for name in "abc"}))
    assert sorted(start["run"] for start in study.starts()) == ["a", "b", "c"]
    assert {start["gpus"] for start in study.starts()} <= {"0", "1"}
    assert not (study.folder / "harm").exists()
    costs = [json.loads(line) for line in (study.folder / ".snakemake/submitit/costs.jsonl").read_text().splitlines()]
    assert len(costs) == 6
    assert all(one["source"] == "job" and one["elapsed_s"] > 0 for cost in costs for one in cost["attempts"])


def test_a_new_head_takes_over_what_a_killed_one_left(study) -> None:
    runs = {"a": {"epochs": 100, "epoch_s": 0.2}}  # longer than a head takes to start on a busy machine
    first = study.start(runs)
    study.until(study.starts)
    first.kill()
    first.wait()
    study.end(study.start(runs))
    assert "adopted job" in study.output()
    assert study.model("a")["starts"] == [0]


def test_a_job_saves_on_request_and_goes_on(study) -> None:
    head = study.start({"a": {"epochs": 20, "epoch_s": 0.2, "periodic": False}})
    study.until(study.starts)
    time.sleep(1.5)
    (controller,) = study.processes()
    children = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)
    study.end(head)
    first, second = study.model("a")["starts"]
    assert first == 0
    assert second > 0


@pytest.mark.parametrize(("setting", "alive"), [("cancel", 0), ("leave", 1)])
def test_ctrl_c_does_to_the_jobs_what_the_settings_say(study, setting, alive) -> None:
    runs = {"a": {"epochs": 30, "epoch_s": 0.2}}
    head = study.start(runs, **{"submitit-on-interrupt": setting})
    study.until(study.starts)
    os.killpg(head.pid, signal.SIGINT)
    study.end(head, code=1)
    assert len(study.processes()) == alive
    study.end(study.start(runs))
    assert len(study.starts()) == 2 - alive
    assert study.model("a")["epoch"] == 30


def test_jobs_are_left_where_snakemake_breaks_off_by_itself(study) -> None:
    """Its own record of a finished job cannot be written, as on a full disk."""
    runs = {"a": {"epochs": 20, "epoch_s": 0.5}, "b": {"epochs": 200, "epoch_s": 0.2}}
    head, metadata = study.start(runs), study.folder / ".snakemake/metadata"
    study.until(lambda: len(study.starts()) == 2)
    metadata.rename(metadata.with_name("moved"))
    metadata.touch()
    study.end(head, code=1)
    assert "1 job(s) left on the cluster" in study.output()
    assert len(study.processes()) == 1
    metadata.unlink()
    metadata.with_name("moved").rename(metadata)
    study.end(study.start(runs))
    assert study.model("b")["starts"] == [0]


def test_a_second_head_is_refused(study) -> None:
    head = study.start({"a": {"epochs": 20, "epoch_s": 0.2}})
    study.until(study.starts)
    study.end(study.start({"a": {"epochs": 20, "epoch_s": 0.2}}), code=1)
    assert f"found another: process {head.pid} on" in study.output()
    study.end(head)


def test_a_folder_whose_name_a_shell_would_run_is_refused(tmp_path) -> None:
    study = Study(tmp_path / "$(touch harm)")
    head = study.start({"a": {}})
    study.end(head, code=1)
    assert "expected paths without $" in study.output()
    assert not list(tmp_path.rglob("harm"))


def test_an_account_that_a_shell_could_read_is_refused_before_anything_is_sent(study) -> None:
    study.end(study.start({"a": {}}, **{"submitit-account": "lab; touch harm"}), code=1)
    assert "expected account to hold letters" in study.output()
    assert not study.starts()
    assert not (study.folder / "harm").exists()


def test_a_failure_shows_its_traceback_and_cause_and_the_others_finish(study) -> None:
    head = study.start({"bad": {"fail_at": 1, "epoch_s": 0.1}, "good": {"epochs": 2, "epoch_s": 0.1}}, "--keep-going")
    study.end(head, code=1)
    assert "ValueError: run bad is broken on purpose at epoch 1" in study.output()
    assert "failed on" in study.output()
    assert "with exit code 1" in study.output()
    assert study.model("good")["epoch"] == 2
