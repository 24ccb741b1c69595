"""The books: whole or absent, read in order, old ones go; what nodes write is read even when a line is cut."""

import json
import os
import random
import time

import pytest
from pydantic import ValidationError

from snakemake_executor_plugin_submitit.books import records
from snakemake_executor_plugin_submitit.books.events import append, has_ended_well, read_attempts
from snakemake_executor_plugin_submitit.books.records import RECORD
from snakemake_executor_plugin_submitit.node.sources import note


def test_what_is_entered_is_read_again(books, make_task, enter) -> None:
    one, other = enter(make_task("a"), make_task("b"), job_id=None), enter(make_task("c"), job_id="9")
    found, _ = books.read()
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


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid JSON"),
        ("[]", "input should be an object, found []"),
        ("{}", "name: field required"),
        ('"name"', "found 'name'"),
    ],
)
def test_what_is_no_record_is_named_with_what_to_do_and_hides_no_other(books, make_task, enter, text, words) -> None:
    good, bad = enter(make_task("a")), enter(make_task("b"))
    (bad.folder / RECORD).write_text(text)
    found, (told,) = books.read()
    assert [submission.name for submission in found] == [good.name]
    assert words in told
    assert told.startswith(f"{bad.folder / RECORD}: expected a record of version 1, found something else (")
    assert f"squeue --me --name {bad.name}" in told
    assert f"delete {bad.folder}" in told


def test_a_record_that_cannot_be_opened_is_named(books, make_task, enter) -> None:
    path = enter(make_task()).folder / RECORD
    path.unlink()
    path.mkdir()
    found, (told,) = books.read()
    assert found == []
    assert told.startswith(f"{path}: expected a record, cannot read it: ")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": 99}, "version: input should be 1, found 99"),
        ({"submitted": "x"}, "submitted: input should be a valid number"),
        ({"members": 7}, "members: input should be a valid array, found 7"),
        ({"members": [7]}, "members.0: "),
        ({"members": [{"key": "k", "rule": "r", "outputs": "a"}]}, "members.0.outputs: input should be a valid array"),
        ({"members": [{"key": "k", "rule": "r", "outputs": [], "state": "lost"}]}, "members.0.state: input should be"),
        ({"memmbers": []}, "memmbers: extra inputs are not permitted"),
    ],
)
def test_a_record_that_is_not_as_expected_is_named(books, make_task, enter, changes, words) -> None:
    path = enter(make_task()).folder / RECORD
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    found, (told,) = books.read()
    assert found == []
    assert words in told


def test_no_bytes_of_a_record_raise(books, make_task, enter) -> None:
    path = enter(make_task()).folder / RECORD
    good, draw = path.read_bytes(), random.Random(0)
    for _ in range(300):
        bad = bytearray(good)
        for _ in range(3):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        path.write_bytes(bytes(bad[: draw.randrange(len(bad))] if draw.random() < 0.3 else bad))
        books.read()


# As heads before the pydantic classes wrote it, key by key.
OLD = {
    "name": "smk-0",
    "scope": "s",
    "submitted": 1.5,
    "request": {"memory_mb": 100, "gres": ""},
    "members": [
        {
            "key": "k",
            "rule": "train",
            "outputs": ["results/a"],
            "attempt": 2,
            "state": "failed",
            "cause": "it broke",
            "node": "n1",
            "log": "l",
        }
    ],
    "folder": "moved/since/jobs/smk-0",
    "job_id": None,
    "extra": {},
    "version": 1,
}


def test_old_records_are_read_and_written_so_that_old_heads_read_them(books) -> None:
    folder = books.root / "jobs" / "smk-0"
    folder.mkdir(parents=True)
    (folder / RECORD).write_text(json.dumps(OLD))
    (found,), _ = books.read()
    assert found.folder == folder
    found.save()
    again = json.loads((folder / RECORD).read_text())
    assert again == OLD | {"folder": str(folder), "extra": {"gpus": []}}
    found.extra.gpus = ["1"]
    found.save()
    assert json.loads((folder / RECORD).read_text())["extra"]["gpus"] == ["1"]  # as old heads look for it


def test_a_state_that_is_none_cannot_be_noted(make_task, enter) -> None:
    with pytest.raises(ValidationError):
        enter(make_task()).members[0].state = "lost"


def test_old_submissions_go_and_open_ones_stay(books, make_task, enter) -> None:
    closed, still_open, new = enter(make_task("a")), enter(make_task("b")), enter(make_task("c"))
    for submission in (closed, new):
        submission.members[0].state = "done"
        submission.save()
    for submission in (closed, still_open):
        long_ago = time.time() - 3 * 86400
        os.utime(submission.folder / RECORD, (long_ago, long_ago))
    books.prune(days=2)
    assert [submission.name for submission in books.read()[0]] == [still_open.name, new.name]


def test_the_books_of_a_job_that_may_live_are_kept_however_short_the_others_are(books, make_task, enter) -> None:
    """What it is to run lies there, and what it will say of itself."""
    living = enter(make_task())
    long_ago = time.time() - 30 * 86400
    os.utime(living.folder / RECORD, (long_ago, long_ago))
    books.prune(days=0)
    assert living.folder.exists()


def test_notes_of_sources_go_with_the_last_submission_that_may_refer_to_them(books, make_task, enter) -> None:
    one, two = (note({"a.py": digest}, books.root) for digest in ("1", "2"))
    old, new = enter(make_task("a")), enter(make_task("b"))
    old.submitted = time.time() - 3 * 86400
    old.members[0].state = "done"
    old.save()
    books.use(old, str(one))
    books.use(new, str(two))
    books.prune(days=2)
    assert (one.exists(), two.exists()) == (True, True)  # its record was written a moment ago
    os.utime(old.folder / RECORD, (old.submitted, old.submitted))
    books.prune(days=2)
    assert (one.exists(), two.exists()) == (False, True)


def test_attempts_are_read_from_what_nodes_append(tmp_path) -> None:
    path = tmp_path / "events.jsonl"
    assert read_attempts(path) == []
    append(path, "start", node="g1", job="7", restarts=0, gpus=["0"])
    append(path, "saved", elapsed_s=3.0)
    append(path, "start", node="g2", job="7", restarts=1, gpus=["1"])
    with path.open("a") as file:
        file.write('{"event": "end", "co')  # the power went
    first, second = read_attempts(path)
    assert (first.node, first.how, first.last.elapsed_s) == ("g1", "saved", 3.0)
    assert (second.node, second.how) == ("g2", "")
    append(path, "start", node="g3", job="7", restarts=2, gpus=["1"])  # the line that was cut swallows nothing
    append(path, "end", code=0)
    assert [attempt.node for attempt in read_attempts(path)] == ["g1", "g2", "g3"]
    assert has_ended_well(path)


def test_what_cannot_be_discarded_is_closed(books, make_task, enter, monkeypatch) -> None:
    submission = enter(make_task(), job_id=None)

    def held(path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(39, "Directory not empty", str(path))

    monkeypatch.setattr(records.shutil, "rmtree", held)
    books.discard(submission)
    ((found,), _) = books.read()
    assert [member.state for member in found.members] == ["cancelled"]
