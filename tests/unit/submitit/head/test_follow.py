"""What becomes of jobs, whatever SLURM says or does not say."""

import errno
from dataclasses import replace

import pytest

from snakemake_executor_plugin_submitit.books import records
from snakemake_executor_plugin_submitit.books.events import append
from snakemake_executor_plugin_submitit.books.records import read_record
from snakemake_executor_plugin_submitit.cluster.send import RefusedError
from snakemake_executor_plugin_submitit.cluster.slurm import Ending, Past, Row
from snakemake_executor_plugin_submitit.head import dispatch
from snakemake_executor_plugin_submitit.head.follow import Follower

START = {"node": "g1", "job": "1", "restarts": 0, "gpus": []}


class Sbatch:
    """Gives numbers to what is sent, whose jobs then run; or refuses it."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.sent: list[list[str]] = []
        self.refusals: list[RefusedError] = []
        self.tried: list[int] = []
        self.most: int | None = None  # jobs that may be there
        self.words = "sbatch: error: AssocMaxSubmitJobLimit; sbatch: error: Job violates accounting/QOS policy"

    def __call__(self, submission, commands, request, settings) -> str:
        self.tried.append(len(submission.members))
        there = sum(row.state == "RUNNING" for row in self.cluster.rows.values())
        if self.most is not None and there + len(submission.members) > self.most:
            raise RefusedError(self.words)
        if self.refusals:
            raise self.refusals.pop()
        self.sent.append([member.outputs[0] for member in submission.members])
        submission.job_id = str(len(self.sent))
        for index in range(len(submission.members)):
            self.cluster.rows[submission.element(index)] = Row("RUNNING", submission.name, "")
        return submission.job_id


@pytest.fixture
def sbatch(monkeypatch, cluster) -> Sbatch:
    found = Sbatch(cluster)
    monkeypatch.setattr(dispatch, "send_to_slurm", found)
    return found


@pytest.fixture
def follower(books, settings, cluster, reporter, sbatch) -> Follower:
    made = Follower(books, settings, "scope", reporter)
    made.cluster = made.dispatcher.cluster = cluster
    return made


def queue(*tasks, state: str = "RUNNING") -> dict[str, Row]:
    return {task.id: Row(state, task.place.name, "") for task in tasks}


def end(task, code: int) -> None:
    append(task.place.events(task.index), "start", **START)
    append(task.place.events(task.index), "end", code=code)


def test_jobs_that_are_ready_together_and_ask_for_the_same_are_one_array(follower, sbatch, make_task) -> None:
    big = make_task("big", request=make_task().request.with_memory(2))
    follower.look([make_task("a"), big, make_task("b")])
    assert sbatch.sent == [["results/a", "results/b"], ["results/big"]]


def test_arrays_stay_below_the_sites_size(follower, cluster, sbatch, make_task) -> None:
    cluster.max_array_size = 3
    follower.look([make_task(str(n)) for n in range(8)])
    assert [len(array) for array in sbatch.sent] == [3, 3, 2]


def test_it_is_in_the_books_before_it_is_sent(follower, books, monkeypatch, make_task) -> None:
    seen = []

    def look_into_the_books(submission, *_: object) -> str:
        ((entered,), _) = books.read()
        seen.append((entered.name, entered.job_id))
        return "5"

    monkeypatch.setattr(dispatch, "send_to_slurm", look_into_the_books)
    follower.look([make_task()])
    ((after,), _) = books.read()
    assert seen == [(after.name, None)]
    assert after.job_id == "5"


def test_a_result_is_a_success_even_while_slurm_is_silent(follower, cluster, reporter, make_task) -> None:
    task = make_task()
    follower.look([task])
    end(task, 0)
    cluster.rows = None
    follower.look([])
    assert reporter.done == [task]
    assert follower.active == []


def test_silence_means_waiting(follower, cluster, reporter, make_task) -> None:
    task = make_task()
    follower.look([task])
    cluster.rows = None
    for _ in range(3):
        follower.look([])
    assert follower.active == [task]
    assert reporter.failures == []
    cluster.rows = queue(task)
    follower.look([])
    assert any("answers again" in line for line in reporter.said)


@pytest.mark.parametrize("silent", ["rows", "word", "history"])
def test_a_job_is_lost_only_when_all_who_know_say_so(follower, cluster, reporter, make_task, settings, silent) -> None:
    settings.lost_after = 0.001
    task = make_task()
    follower.look([task])
    cluster.rows = {}
    setattr(cluster, silent, None)
    follower.look([])
    assert follower.active == [task]
    assert reporter.failures == []


def test_how_a_job_ended_is_believed_of_the_controller_where_the_accounting_has_no_row(
    follower, cluster, reporter, settings, make_task
) -> None:
    settings.lost_after = 3600.0
    task = make_task()
    follower.look([task])
    task.gone_since = 1.0
    cluster.rows, cluster.word = {task.id: Row("CANCELLED", task.place.name, "")}, "CANCELLED"
    follower.look([])
    assert "cancelled" in reporter.failures[0][1]


def test_a_job_the_controller_still_knows_is_alive_whatever_the_queue_shows(follower, cluster, make_task) -> None:
    task = make_task()
    follower.look([task])
    cluster.rows, cluster.word = {}, "RUNNING"
    follower.look([])
    assert follower.active == [task]


def test_a_passing_failure_is_sent_again_so_many_times(follower, cluster, reporter, sbatch, make_task) -> None:
    task = make_task()
    follower.look([task])
    for _ in range(8):
        cluster.rows = {}
        cluster.history = {task.id: Past("NODE_FAIL", "NODE_FAIL")} if task.submission else {}
        follower.look([])
    assert len(sbatch.sent) == 3  # the first time, and two retries
    ((_, text),) = reporter.failures
    assert text.startswith("attempt 3, job 3: the node failed")


def test_a_fault_of_its_own_is_not_sent_again(follower, reporter, sbatch, make_task) -> None:
    task = make_task()
    follower.look([task])
    end(task, 1)
    follower.look([])
    follower.look([])
    assert len(sbatch.sent) == 1
    assert "exit code 1" in reporter.failures[0][1]
    assert task.member.state == "failed"


@pytest.mark.parametrize(("growth", "sizes"), [(1.0, [100]), (1.5, [100, 150, 225])])
def test_more_memory_is_given_when_the_policy_says_so(
    follower, cluster, reporter, settings, books, make_task, growth, sizes
) -> None:
    settings.memory_growth = growth
    task = make_task()
    follower.look([task])
    for _ in range(8):
        cluster.rows = {}
        cluster.history = {task.id: Past("OUT_OF_MEMORY", "OUT_OF_MEMORY")} if task.submission else {}
        follower.look([])
    assert [submission.request["memory_mb"] for submission in books.read()[0]] == sizes
    assert "out of memory" in reporter.failures[0][1]


def test_sbatch_that_cannot_now_is_tried_again(follower, reporter, sbatch, make_task) -> None:
    sbatch.refusals = [RefusedError("Socket timed out on send/recv operation")]
    follower.look([make_task()])
    assert (sbatch.sent, reporter.failures) == ([], [])
    follower.look([])
    assert sbatch.sent == [["results/a"]]


def test_sbatch_that_will_not_is_a_failure(follower, reporter, sbatch, make_task) -> None:
    sbatch.refusals = [RefusedError("error: invalid partition specified: nope")]
    follower.look([make_task()])
    follower.look([])
    assert sbatch.sent == []
    assert "invalid partition specified: nope" in reporter.failures[0][1]


def test_what_sbatch_did_although_it_failed_is_cancelled(follower, cluster, sbatch, books, make_task) -> None:
    sbatch.refusals = [RefusedError("timed out")]
    follower.look([make_task()])
    ((submission,), _) = books.read()
    cluster.rows = {"44": Row("PENDING", submission.name, ""), "45": Row("RUNNING", "other", "")}
    follower.look([])
    assert cluster.cancelled == ["44"]


def test_an_earlier_heads_job_is_taken_over(books, settings, cluster, reporter, sbatch, make_task, enter) -> None:
    task = make_task()
    submission = enter(make_task())
    cluster.rows = {"7": Row("RUNNING", submission.name, "")}
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([task])
    assert sbatch.sent == []
    assert (follower.active, reporter.places, task.id) == ([task], [task], "7")


def test_an_outdated_job_must_be_gone_before_its_successor_is_sent(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    submission = enter(make_task(key="before"))
    cluster.rows = {"7": Row("RUNNING", submission.name, "")}
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([make_task(key="after")])
    assert "7" in cluster.cancelled
    assert sbatch.sent == []
    cluster.rows = {}
    follower.look([])
    assert sbatch.sent == [["results/a"]]


@pytest.mark.parametrize(("scope", "cancelled"), [("scope", True), ("another study", False)])
def test_jobs_of_this_study_that_nothing_asks_for_any_more_are_cancelled(
    books, settings, cluster, reporter, sbatch, make_task, enter, scope, cancelled
) -> None:
    submission = enter(make_task("gone"), scope=scope)
    reporter.unknown = {"results/gone"}
    cluster.rows = {"7": Row("RUNNING", submission.name, "")}
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([make_task("a")])
    assert ("7" in cluster.cancelled) == cancelled


def test_the_end_cancels_what_was_sent_and_sees_it_gone(follower, cluster, make_task) -> None:
    tasks = [make_task("a"), make_task("b")]
    follower.look(tasks)
    cluster.obeys = True
    follower.cancel_all([])
    assert cluster.cancelled == ["1"]
    assert [task.member.state for task in tasks] == ["cancelled", "cancelled"]


def test_the_end_cancels_no_job_that_this_head_never_took(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    """Of an array of three of an earlier head one is asked for."""
    tasks = [make_task(name) for name in "abc"]
    submission = enter(*tasks)
    cluster.rows = {submission.element(index): Row("RUNNING", submission.name, "") for index in range(3)}
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([tasks[0]])
    cluster.obeys = True
    follower.cancel_all([])
    assert cluster.cancelled == ["7_0"]
    assert [member.state for member in read_record(submission.folder / "record.json").members] == [
        "cancelled",
        "open",
        "open",
    ]


def test_the_end_names_jobs_that_were_to_be_taken_over(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    """Before the queue's first answer this head knows nothing of them but the books."""
    task = make_task()
    enter(task)
    cluster.rows = None
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([task])
    cluster.rows = {}
    follower.cancel_all([])
    assert any("1 job(s) of earlier runs may go on" in line and line.endswith("scancel 7") for line in reporter.said)


def test_an_end_that_a_network_file_system_tells_late_is_no_loss(
    follower, cluster, reporter, sbatch, make_task, monkeypatch
) -> None:
    """Attributes of a file that nobody opens may be a minute old there; opening it asks for new ones."""
    task = make_task()
    follower.look([task])
    append(task.place.events(0), "start", **START)
    assert task.verdict() is None
    old = task.place.events(0).stat()
    monkeypatch.setattr(type(task.place.events(0)), "stat", lambda *_, **__: old)
    append(task.place.events(0), "end", code=0)
    assert task.verdict() == 0


def test_what_slurm_calls_completed_is_waited_for(follower, cluster, settings, make_task) -> None:
    settings.lost_after = 60.0
    task = make_task()
    follower.look([task])
    append(task.place.events(0), "start", **START)
    cluster.word, cluster.history = "COMPLETED", {task.id: Past("COMPLETED", "COMPLETED")}
    cluster.rows = queue(task, state="COMPLETED")
    follower.look([])
    task.gone_since -= 30
    follower.look([])
    assert follower.active == [task]


def test_what_sbatch_may_have_done_is_seen_gone_before_it_is_sent_again(
    follower, cluster, sbatch, reporter, make_task
) -> None:
    task = make_task()
    sbatch.refusals = [RefusedError("Socket timed out on send/recv operation")]
    follower.look([task])
    [unsure] = follower.dispatcher.unsure
    for rows in ({"50": Row("RUNNING", unsure.name, "")}, None):  # it was heard; then there is no answer
        cluster.rows = rows
        follower.look([])
        assert sbatch.sent == []
    cluster.rows = {"50": Row("CANCELLED", unsure.name, "")}
    follower.look([])
    assert cluster.cancelled == ["50"]
    assert sbatch.sent == [["results/a"]]


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED"])
def test_an_earlier_heads_job_that_may_be_requeued_is_cancelled_before_it_is_sent_again(
    books, settings, cluster, reporter, sbatch, make_task, enter, state
) -> None:
    task = make_task()
    submission = enter(task)
    cluster.rows, cluster.word = {"7": Row(state, submission.name, "")}, state
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([task])
    assert cluster.cancelled == ["7"]


def test_what_ended_while_snakemake_planned_is_not_run_again(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    task = make_task()
    submission = enter(task)
    append(submission.events(0), "start", **START)
    append(submission.events(0), "end", code=0)  # after `follow` was imported, when Snakemake began
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    assert list(follower.finished_alone(["results/b"])) != []
    submission.members[0].state = "open"
    submission.save()
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    assert list(follower.finished_alone(task.outputs)) == []
    follower.look([task])
    assert sbatch.sent == []
    assert reporter.done == [task]


def test_an_adopted_job_is_judged_by_what_it_asked_for(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    """Its memory had grown, and the rule's runtime was raised since."""
    settings.memory_growth = 1.5
    task = make_task(request=replace(make_task().request, minutes=600))
    submission = enter(task)
    submission.request["memory_mb"] = 150
    submission.save()
    cluster.rows = {"7": Row("RUNNING", submission.name, "")}
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([task])
    append(submission.events(0), "start", **START)
    cluster.rows, cluster.word = {}, "OUT_OF_MEMORY"
    cluster.history = {"7": Past("OUT_OF_MEMORY", "OUT_OF_MEMORY")}
    follower.look([])
    assert any("asked 150 MB" in line and "with 225 MB" in line for line in reporter.said)
    assert (task.request.memory_mb, task.request.minutes) == (225, 600)


def test_what_is_left_stays_open_for_the_next_head(follower, books, settings, cluster, reporter, make_task) -> None:
    task = make_task()
    follower.look([task])
    follower.leave()
    assert cluster.cancelled == []
    assert [former.member.key for former in Follower(books, settings, "scope", reporter).former] == [task.key]


def test_a_job_that_will_never_start_is_told_of_once(follower, cluster, reporter, make_task) -> None:
    task = make_task()
    follower.look([task])
    cluster.rows = {task.id: Row("PENDING", task.place.name, "(PartitionTimeLimit)")}
    follower.look([])
    follower.look([])
    (line,) = [line for line in reporter.said if "will not start by itself: PartitionTimeLimit. Lower runtime" in line]
    assert line.startswith(f"job {task.id} (train)")


def test_the_advice_names_the_job_that_is_stuck(follower, cluster, reporter, make_task) -> None:
    """Not the last of those that are followed: somebody would cancel a job that runs."""
    tasks = [make_task(str(number)) for number in range(3)]
    follower.look(tasks)
    reasons = ["Priority", "JobHeldUser", "Priority"]
    cluster.rows = {
        task.id: Row("PENDING", task.place.name, reason) for task, reason in zip(tasks, reasons, strict=True)
    }
    follower.look([])
    (line,) = [line for line in reporter.said if "will not start" in line]
    assert line.startswith(f"job {tasks[1].id} (")
    assert line.endswith(f"scontrol release {tasks[1].id}. Or cancel it: scancel {tasks[1].id}")


def test_many_jobs_that_will_never_start_for_one_reason_are_one_line(follower, cluster, reporter, make_task) -> None:
    tasks = [make_task(str(number)) for number in range(4)]
    follower.look(tasks)
    cluster.rows = {
        task.id: Row("PENDING", task.place.name, "JobHeldUser" if task is not tasks[3] else "Priority")
        for task in tasks
    }
    for _ in range(3):
        follower.look([])
    said = [line for line in reporter.said if "will not start" in line]
    assert said == [
        "job 1_0 and 2 more (train) will not start by themselves: JobHeldUser. Let it go with: scontrol release "
        "'1_[0-2]'. Or cancel it: scancel '1_[0-2]'"
    ]


def test_a_damaged_record_is_named_and_the_others_are_adopted(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    good, bad = enter(make_task("a")), enter(make_task("b"))
    (bad.folder / "record.json").write_text("{")
    cluster.rows = {"7": Row("RUNNING", good.name, "")}
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    assert [line for line in reporter.said if "record not read" in line and bad.name in line]
    follower.look([make_task("a")])
    assert sbatch.sent == []
    assert [task.id for task in follower.active] == ["7"]


def test_a_limit_on_submitted_jobs_is_met_by_smaller_arrays_and_said_once(
    follower, cluster, reporter, sbatch, settings, books, make_task
) -> None:
    settings.backoff = 3600.0
    sbatch.most = 5
    tasks = [make_task(str(number)) for number in range(12)]
    follower.look(tasks)
    assert sbatch.tried == [12, 6, 3, 3, 1, 1, 1]
    assert len(follower.active) == 5
    follower.look([])
    assert len(sbatch.tried) == 7  # full: nothing is tried
    assert len(books.read()[0]) == 3  # of a refused array nothing is left
    for _ in range(7):
        for task in list(follower.active)[:2]:
            end(task, 0)
            cluster.rows[task.id] = Row("COMPLETED", task.place.name, "")  # the queue shows it for some minutes
        follower.look([])
    assert len(reporter.done) == 12
    assert max(sbatch.tried[7:]) <= 2
    assert [line for line in reporter.said if "the site's limit" in line] == [
        "the site's limit on submitted jobs is reached (AssocMaxSubmitJobLimit), with 5 of this folder's jobs there. "
        "The others follow as jobs end"
    ]


def test_a_limit_that_others_filled_is_tried_again(follower, sbatch, settings, reporter, make_task) -> None:
    sbatch.most = 0
    settings.backoff = 3600.0
    follower.look([make_task(str(number)) for number in range(4)])
    assert (sbatch.tried, reporter.failures) == ([4, 2, 1], [])
    sbatch.most = 9
    follower.look([])
    assert sbatch.tried == [4, 2, 1]
    for full in follower.dispatcher.full.values():
        full.again = 0.0
    follower.look([])
    assert sbatch.tried == [4, 2, 1, 1, 3]
    assert follower.dispatcher.full == {}


def test_a_limit_without_a_name_is_final_where_no_job_is_there(follower, sbatch, reporter, make_task) -> None:
    """Then it is not one on the number of jobs, and would be met for ever."""
    sbatch.most, sbatch.words = 0, "sbatch: error: Job violates accounting/QOS policy"
    follower.look([make_task("a"), make_task("b")])
    follower.look([])
    assert len(reporter.failures) == 2
    assert follower.dispatcher.waiting == []
    assert {one.members[0].state for one in follower.books.read()[0]} == {"failed"}


def test_an_earlier_heads_job_that_the_queue_hides_is_taken_over(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    enter(make_task())
    cluster.rows, cluster.word = {}, None
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    follower.look([make_task()])
    assert (sbatch.sent, follower.active) == ([], [])  # the controller is silent: nothing is decided
    cluster.word = "RUNNING"
    follower.look([])
    assert (sbatch.sent, [task.id for task in follower.active]) == ([], ["7"])


def test_an_outdated_job_that_the_queue_hides_is_waited_for(
    books, settings, cluster, reporter, sbatch, make_task, enter
) -> None:
    enter(make_task(key="before"))
    cluster.rows, cluster.word = {}, "RUNNING"
    follower = Follower(books, settings, "scope", reporter)
    follower.cluster = follower.dispatcher.cluster = cluster
    for _ in range(2):
        follower.look([make_task(key="after")] if not follower.dispatcher.waiting else [])
    assert (cluster.cancelled[0], sbatch.sent) == ("7", [])
    cluster.word = "gone"
    follower.look([])
    assert sbatch.sent == [["results/a"]]


def test_what_saved_and_was_not_requeued_goes_on_without_being_counted(
    follower, cluster, reporter, sbatch, settings, make_task
) -> None:
    settings.max_requeues = 4
    task = make_task()
    follower.look([task])
    for turn in range(5):
        append(task.place.events(task.index), "start", **START)
        append(task.place.events(task.index), "saved")
        cluster.rows, cluster.history = {}, {task.id: Past("FAILED", "FAILED")}
        follower.look([])
        follower.look([])
        assert len(sbatch.sent) == min(turn + 2, 5)
    assert task.attempt == 1
    assert "its state saved on g1, but SLURM did not requeue it" in reporter.failures[0][1]


def test_a_job_that_never_started_is_kept_away_from_the_nodes_where_it_did_not(follower, cluster, make_task) -> None:
    task = make_task()
    follower.look([task])
    for node in ("c2", "c1"):
        cluster.rows, cluster.end = queue(task, state="FAILED"), Ending("0:53", node)
        follower.look([])
        assert task.member.node == node if task.submission else True
        follower.look([])
    assert task.request.exclude == ("c1", "c2")
    assert task.request.parameters(0)["exclude"] == "c1,c2"


def test_where_no_other_nodes_are_it_may_go_to_those_again(
    follower, cluster, reporter, sbatch, request_made, make_task
) -> None:
    task = make_task(request=request_made.without_node("c9"))  # which its rule excludes
    follower.look([task])
    cluster.rows, cluster.end = queue(task, state="FAILED"), Ending("0:53", "c1")
    follower.look([])
    sbatch.refusals = [RefusedError("error: Requested node configuration is not available")]
    follower.look([])
    assert reporter.failures == []
    assert "no nodes for train but c1, where it did not start (error: Requested node" in reporter.said[-1]
    follower.look([])
    assert task.submission is not None
    assert task.request.exclude == ("c9",)


def test_an_account_that_is_refused_is_final_whatever_nodes_were_avoided(
    follower, cluster, reporter, sbatch, make_task
) -> None:
    task = make_task()
    follower.look([task])
    cluster.rows, cluster.end = queue(task, state="FAILED"), Ending("0:53", "c1")
    follower.look([])
    sbatch.refusals = [RefusedError("error: Invalid account or account/partition combination specified")]
    follower.look([])
    assert "Invalid account" in reporter.failures[0][1]


def test_a_rule_with_retries_of_its_own_says_what_memory_the_next_attempt_gets(
    follower, cluster, reporter, settings, make_task
) -> None:
    settings.memory_growth = 1.5
    task = make_task(may_restart=True)
    follower.look([task])
    cluster.rows, cluster.history = {}, {task.id: Past("OUT_OF_MEMORY", "OUT_OF_MEMORY")}
    follower.look([])
    assert [failed for failed, _ in reporter.failures] == [task]
    assert task.request.memory_mb == 100


def test_a_full_disk_sends_nothing_is_said_once_and_passes(follower, reporter, sbatch, monkeypatch, make_task) -> None:
    first, second = make_task("a"), make_task("b")
    follower.look([first])
    end(first, 0)
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_: object, **__: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(records, "write_whole", fail)
        follower.look([second])
        follower.look([])
    assert reporter.done == [first]
    assert len(sbatch.sent) == 1
    assert sum("records cannot be written ([Errno 28] No space left on device)" in said for said in reporter.said) == 1
    follower.look([])
    follower.look([])
    assert sbatch.sent[1:] == [["results/b"]]
    assert "records can be written again" in reporter.said
    assert read_record(first.place.folder / "record.json").members[0].state == "done"


def test_a_job_that_runs_edited_code_says_so_once_for_each_start(follower, reporter, make_task) -> None:
    task = make_task(label="train run=a")
    follower.look([task])
    append(task.place.events(0), "start", **START, edited=["cem/x.py"])
    follower.look([])
    follower.look([])
    told = [said for said in reporter.said if "other code than was planned: since then cem/x.py changed" in said]
    assert len(told) == 1
    assert told[0].startswith(f"job {task.id} (train run=a)")
