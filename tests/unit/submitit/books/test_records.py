"""The books: whole or absent, read in order, old ones go; what nodes write is read even when a line is cut."""

import json
import os
import time

import pytest

from snakemake_executor_plugin_submitit.events import append, read_attempts
from snakemake_executor_plugin_submitit.records import RECORD


def test_what_is_entered_is_read_again(books, make_task, enter) -> None:
    one, other = enter(make_task("a"), make_task("b"), job_id=None), enter(make_task("c"), job_id="9")
    found = list(books.read())
    assert [submission.name for submission in found] == [one.name, other.name]
    assert [member.outputs for member in found[0].members] == [["results/a"], ["results/b"]]
    assert found[0].job_id is None
    assert (other.element(0), found[0].folder) == ("9", one.folder)


def test_elements_of_an_array_have_numbers_and_a_single_job_has_none(make_task, enter) -> None:
    assert enter(make_task("a"), make_task("b")).element(1) == "7_1"
    assert enter(make_task("a")).element(0) == "7"


def test_a_record_is_never_half(make_task, enter, monkeypatch) -> None:
    submission = enter(make_task())
    before = (submission.folder / RECORD).read_text()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    submission.job_id = "8"
    with pytest.raises(OSError, match="disk full"):
        submission.save()
    assert {path.name for path in submission.folder.iterdir()} == {RECORD, "7_submitted.pkl"}
    assert (submission.folder / RECORD).read_text() == before


def test_records_of_other_versions_are_passed_over(books, make_task, enter) -> None:
    path = enter(make_task()).folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    assert list(books.read()) == []


def test_old_submissions_go_and_open_ones_stay(books, make_task, enter) -> None:
    closed, still_open, new = enter(make_task("a")), enter(make_task("b")), enter(make_task("c"))
    for submission in (closed, new):
        submission.members[0].state = "done"
        submission.save()
    for submission in (closed, still_open):
        long_ago = time.time() - 3 * 86400
        os.utime(submission.folder / RECORD, (long_ago, long_ago))
    books.prune(days=2)
    assert [submission.name for submission in books.read()] == [still_open.name, new.name]


def test_attempts_are_read_from_what_nodes_append(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_attempts(path) == []
    append(path, "start", node="g1", job="7", restarts=0, gpus=["0"])
    append(path, "saved", elapsed_s=3.0)
    append(path, "start", node="g2", job="7", restarts=1, gpus=["1"])
    with path.open("a") as file:
        file.write('{"event": "end", "co')  # the power went
    first, second = read_attempts(path)
    assert (first.node, first.how, first.last["elapsed_s"]) == ("g1", "saved", 3.0)
    assert (second.node, second.how) == ("g2", "")
