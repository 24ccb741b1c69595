"""A job of an earlier head is taken over when it is the right one, and cancelled when it is not."""

import time

import pytest

from snakemake_executor_plugin_submitit.books.events import append
from snakemake_executor_plugin_submitit.cluster.slurm import Row
from snakemake_executor_plugin_submitit.head.adopt import Former, classify

START = {"node": "g1", "job": "7", "restarts": 0, "gpus": []}


def row(submission, state: str = "RUNNING") -> dict[str, Row]:
    return {submission.element(0): Row(state, submission.name, "")}


def end(submission, code: int = 0) -> None:
    append(submission.events(0), "start", **START)
    append(submission.events(0), "end", code=code)


def test_a_live_equal_is_adopted(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    assert classify(task, [former], row(former.submission), since=0) == (former, [])


def test_jobs_of_other_files_are_nobodys_business(make_task, enter) -> None:
    former = Former(enter(make_task("b")), 0)
    assert classify(make_task("a"), [former], row(former.submission), since=0) == (None, [])


def test_same_files_from_other_settings_are_out_of_date(make_task, enter) -> None:
    former = Former(enter(make_task(key="before")), 0)
    assert classify(make_task(key="after"), [former], row(former.submission), since=0) == (None, [former])


def test_a_job_that_is_gone_is_sent_again(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    assert classify(task, [former], {}, since=0) == (None, [former])
    assert classify(task, [former], row(former.submission, "FAILED"), since=0) == (None, [former])


def test_another_clusters_job_of_the_same_number_is_not_taken(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    rows = {"7": Row("RUNNING", "smk-somebody-elses", "")}
    assert classify(task, [former], rows, since=0)[0] is None


def test_half_an_array_is_not_taken(make_task, enter) -> None:
    task = make_task()
    former = Former(enter(task, whole=False), 0)
    assert classify(task, [former], row(former.submission), since=0) == (None, [former])


@pytest.mark.parametrize(("code", "before", "taken"), [(0, False, True), (0, True, False), (1, False, False)])
def test_a_result_counts_when_it_is_newer_than_the_decision_to_make_it(make_task, enter, code, before, taken) -> None:
    task = make_task()
    former = Former(enter(task), 0)
    end(former.submission, code)
    since = time.time() + (10 if before else -10)
    assert (classify(task, [former], {}, since)[0] is former) == taken


def test_a_job_is_found_by_its_name_when_its_head_died_before_noting_it(make_task, enter) -> None:
    former = Former(enter(make_task(), job_id=None), 0)
    former.find({})
    assert former.submission.job_id is None
    former.find({"31": Row("PENDING", former.submission.name, ""), "9": Row("PENDING", "other", "")})
    assert former.id == "31"
