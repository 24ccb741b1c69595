"""Records of cluster jobs are read with care: the last of each job counts, and what is not understood is said."""

import json
import random
from pathlib import Path

import pytest

from cem.cluster_jobs import VERSION, read_cluster_jobs
from cem.planning.plan import Plan
from snakemake_executor_plugin_submitit import records


@pytest.fixture
def plan(study, tmp_path, monkeypatch) -> Plan:
    monkeypatch.chdir(tmp_path)
    return Plan(study())


@pytest.fixture
def books(tmp_path) -> Path:
    return tmp_path / ".snakemake/submitit/jobs"


def enter(books: Path, submitted: float, *members: dict[str, object], **changes: object) -> None:
    """A record as the executor writes it."""
    plain = {
        "key": "k",
        "rule": "train",
        "attempt": 1,
        "state": "failed",
        "cause": "it broke",
        "node": "n1",
        "log": "l",
    }
    content = {"version": VERSION, "submitted": submitted, "members": [plain | member for member in members]}
    folder = books / f"smk-{submitted:g}"
    folder.mkdir(parents=True)
    (folder / "record.json").write_text(json.dumps(content | changes))


def outputs(plan: Plan, name: str = "model.safetensors") -> list[str]:
    (run,) = plan.runs.values()
    return [str(plan.run(run) / name)]


def test_a_failure_without_its_file_is_told(plan, books) -> None:
    enter(books, 1.0, {"outputs": outputs(plan), "attempt": 3})
    (job,) = read_cluster_jobs(plan).failed
    (run,) = plan.runs
    assert (job.rule, job.run, job.node, job.attempt, job.log, job.cause) == ("train", run, "n1", 3, "l", "it broke")
    for path in job.outputs:
        Path(path).parent.mkdir(parents=True)
        Path(path).touch()
    assert read_cluster_jobs(plan).failed == []


@pytest.mark.parametrize(("later", "open_jobs"), [("done", 0), ("open", 1), ("cancelled", 0), ("retried", 0)])
def test_a_later_submission_stands_for_an_earlier_one(plan, books, later, open_jobs) -> None:
    enter(books, 2.0, {"outputs": outputs(plan), "state": later})
    enter(books, 1.0, {"outputs": outputs(plan)})
    found = read_cluster_jobs(plan)
    assert (found.failed, found.open) == ([], open_jobs)


def test_files_of_other_studies_are_not_looked_at(plan, books) -> None:
    enter(books, 1.0, {"outputs": ["results/other/runs/a/model.safetensors"]}, {"outputs": outputs(plan, "else.txt")})
    enter(books, 2.0, {"outputs": ["results/other/runs/a/model.safetensors"], "state": "open"})
    assert (read_cluster_jobs(plan).failed, read_cluster_jobs(plan).open) == ([], 0)


def test_shared_files_and_attacks_are_the_studys(plan, books) -> None:
    (run,) = plan.runs.values()
    attack = str(plan.attack(run, "mean_image") / "metrics.parquet")
    data = str(plan.data(run.dataset))
    enter(books, 1.0, {"outputs": [attack]}, {"outputs": [data]}, {"outputs": [str(plan.report)]})
    assert [job.run for job in read_cluster_jobs(plan).failed] == [run.id, "-", "-"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "expected a record of version 1"),
        ("[]", "something else"),
        ('{"version": 2}', "expected version 1, found 2"),
        ('{"version": 1, "submitted": 1}', "KeyError"),
        ('{"version": 1, "submitted": "x", "members": []}', "ValueError"),
        ('{"version": 1, "submitted": 1, "members": [{"outputs": "a", "state": "open", "attempt": 1}]}', "TypeError"),
        ('{"version": 1, "submitted": 1, "members": 7}', "TypeError"),
        ('{"version": 1, "submitted": 1, "members": [7]}', "TypeError"),
    ],
)
def test_what_is_not_a_record_is_said_and_hides_no_other(plan, books, text, words) -> None:
    enter(books, 1.0, {"outputs": outputs(plan)})
    (books / "smk-2").mkdir()
    (books / "smk-2/record.json").write_text(text)
    found = read_cluster_jobs(plan)
    assert len(found.failed) == 1
    (told,) = found.unreadable
    assert words in told


def test_no_bytes_of_a_record_raise(plan, books) -> None:
    enter(books, 1.0, {"outputs": outputs(plan)})
    path = books / "smk-1/record.json"
    good, draw = path.read_bytes(), random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(3):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        path.write_bytes(bytes(bad[: draw.randrange(len(bad))] if draw.random() < 0.3 else bad))
        read_cluster_jobs(plan)


def test_the_executor_writes_what_is_read_here(plan, books) -> None:
    assert VERSION == records.VERSION
    member = records.Member(
        "k", "train", outputs(plan), attempt=2, state="failed", cause="it broke", node="n1", log="l"
    )
    records.Books(books.parent).open("scope", {}, [member])
    (job,) = read_cluster_jobs(plan).failed
    assert (job.attempt, job.cause) == (2, "it broke")
