"""A cluster that answers what a test says, and the books below a temporary folder."""

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snakemake_executor_plugin_submitit.books.records import Books, Member, Submission
from snakemake_executor_plugin_submitit.cluster.resources import Request
from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import Cost, Ending, Past, Row, Slurm
from snakemake_executor_plugin_submitit.head.task import Task


class FakeCluster:
    """Answers like Slurm. `rows` None: the queue is silent."""

    accounting: bool | None = True
    max_array_size: int | None = 1000

    def __init__(self) -> None:
        self.rows: dict[str, Row] | None = {}
        self.history: dict[str, Past] | None = {}
        self.word: str | None = "gone"
        self.end: Ending | None = None
        self.cancelled: list[str] = []
        self.obeys = False

    def queue(self) -> dict[str, Row] | None:
        return self.rows

    def past(self, ids: list[str]) -> dict[str, Past] | None:
        return self.history

    def costs(self, job: str) -> list[Cost] | None:
        return None

    def known(self, job: str, name: str) -> str | None:
        return self.word

    def ending(self, job: str) -> Ending | None:
        return self.end

    def order(self, ids, names) -> str:
        return Slurm.order(self, ids, names)

    def cancel(self, ids) -> bool:
        self.cancelled += sorted(ids)
        if self.obeys:
            self.rows = {}
        return True


class FakeReporter:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.places: list[Task] = []
        self.done: list[Task] = []
        self.failures: list[tuple[Task, str]] = []
        self.unknown: set[str] = set()

    def say(self, text: str) -> None:
        self.said.append(text)

    def makes(self, outputs: list[str]) -> bool:
        return not self.unknown & set(outputs)

    def submitted(self, task: Task) -> None:
        self.places.append(task)

    def succeeded(self, task: Task, seconds: float) -> None:
        self.done.append(task)

    def failed(self, task: Task, text: str, log: Path | None, end: str) -> None:
        self.failures.append((task, text))


REQUEST = Request(
    memory_mb=100, minutes=60, cpus=1, gpus=1, partition="gpu", account="", qos="", constraint="", gres=""
)


@pytest.fixture
def request_made() -> Request:
    return REQUEST


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def reporter() -> FakeReporter:
    return FakeReporter()


@pytest.fixture
def books(tmp_path) -> Books:
    return Books(tmp_path / "submitit")


@pytest.fixture
def settings() -> ExecutorSettings:
    return ExecutorSettings(poll=0.0, backoff=0.0, lost_after=0.0, retries=2)


@pytest.fixture
def make_task() -> Callable[..., Task]:
    def made(name: str = "a", **values: Any) -> Task:
        content = {
            "job": object(),
            "key": f"key-{name}",
            "name": "train",
            "outputs": [f"results/{name}"],
            "command": "true",
            "request": REQUEST,
        }
        return Task(**content | values)

    return made


@pytest.fixture
def enter(books) -> Callable[..., Submission]:
    """A submission in the books, as an earlier head left it."""

    def entered(*tasks: Task, job_id: str | None = "7", scope: str = "scope", whole: bool = True) -> Submission:
        members = [Member(key=task.key, rule=task.name, outputs=task.outputs) for task in tasks]
        submission = books.open(scope, REQUEST.asdict(), members)
        submission.job_id = job_id
        submission.save()
        for index in range(len(tasks)):
            if whole:
                (submission.folder / f"{submission.element(index)}_submitted.pkl").touch()
        return submission

    return entered


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Callable[[str, str], None]:
    """Puts a program ahead of all others on PATH: its text is a shell script."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder), prepend=":")

    def put(name: str, text: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    return put
