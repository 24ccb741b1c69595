"""What jobs used goes into the books, and into their own results where that is wished; it never breaks a study."""

import json
import os
from dataclasses import replace

import pytest

from snakemake_executor_plugin_submitit.books.costs import AttemptCost, goal, hand_over
from snakemake_executor_plugin_submitit.books.events import append, read_attempts
from snakemake_executor_plugin_submitit.cluster.slurm import Cost, Row
from snakemake_executor_plugin_submitit.head import dispatch, follow
from snakemake_executor_plugin_submitit.head.adopt import Histories
from snakemake_executor_plugin_submitit.head.follow import Follower

COST = AttemptCost("7", "g1", "accounting", "COMPLETED", False, 60.0, 50.0, 120.0, None)


@pytest.fixture
def result(tmp_path):
    """A job's JSON output, written an hour ago."""
    path = tmp_path / "train.json"
    path.write_text('{"accuracy": 0.5}')
    path.chmod(0o640)
    then = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(then, then))
    return path


def test_costs_are_put_beside_what_the_job_wrote_and_the_file_keeps_its_time(result) -> None:
    before = result.stat()
    assert hand_over(result, [COST]) == ""
    content = json.loads(result.read_text())
    assert content["accuracy"] == 0.5
    assert content["costs"][0]["gpu_s"] == 120
    assert content["costs"][0]["max_rss_mb"] is None  # unavailable is not zero
    after = result.stat()
    assert (after.st_mtime_ns, after.st_mode) == (before.st_mtime_ns, before.st_mode)
    assert [path.name for path in result.parent.iterdir()] == ["train.json"]


def test_what_is_handed_over_again_takes_the_place_of_the_first(result) -> None:
    hand_over(result, [COST])
    hand_over(result, [replace(COST, lost=True), COST])
    assert [cost["lost"] for cost in json.loads(result.read_text())["costs"]] == [True, False]


@pytest.mark.parametrize(
    ("text", "words"), [("{", "cannot put the job's costs"), ("[1]", "expected a JSON object"), (None, "No such file")]
)
def test_a_broken_result_is_left_as_it_is_and_named(result, text, words) -> None:
    result.unlink() if text is None else result.write_text(text)
    said = hand_over(result, [COST])
    assert str(result) in said
    assert words in said
    assert text is None or result.read_text() == text


def test_a_job_of_several_such_results_and_a_group_have_no_place_for_them() -> None:
    names = "train.json,attack.json"
    assert str(goal(names, "train", ["runs/a/model", "runs/a/train.json"])) == "runs/a/train.json"
    assert goal(names, "baselines", ["a/attack.json", "b/attack.json"]) is None
    assert goal(names, "extract+train", ["runs/a/train.json"]) is None
    assert goal("", "train", ["runs/a/train.json"]) is None


@pytest.fixture
def follower(books, settings, cluster, reporter, monkeypatch):
    """Makes followers whose jobs run at once and whose costs go into train.json."""
    settings.costs_into = "train.json"

    def send(submission, commands, request, settings) -> str:
        submission.job_id = str(100 + len(books.read()[0]))
        (submission.folder / f"{submission.job_id}_submitted.pkl").touch()
        cluster.rows[submission.job_id] = Row("RUNNING", submission.name, "")
        return submission.job_id

    monkeypatch.setattr(dispatch, "send_to_slurm", send)

    def make() -> Follower:
        made = Follower(books, settings, "scope", reporter)
        made.cluster = made.dispatcher.cluster = cluster
        return made

    return make


def begin(task) -> float:
    append(task.place.events(task.index), "start", node="g1", job="1", restarts=0, gpus=["0"])
    return float(json.loads(task.place.events(task.index).read_text().splitlines()[-1])["time"])


def test_a_success_is_told_once_the_accounting_knows_of_it(follower, cluster, reporter, make_task, result) -> None:
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    begun = begin(task)
    append(task.place.events(0), "end", code=0, elapsed_s=5.0)
    head.look([])
    assert reporter.done == []
    assert "costs" not in json.loads(result.read_text())
    cluster.costs = lambda job: [Cost("COMPLETED", begun, 7.0, 6.0, 1, 300.0)]
    head.look([])
    assert reporter.done == [task]
    [cost] = json.loads(result.read_text())["costs"]
    assert (cost["source"], cost["elapsed_s"]) == ("accounting", 7)


@pytest.mark.parametrize(("counted", "gpu_s"), [(None, 14), (0, 0), (1, 7)])
def test_gpus_that_the_accounting_does_not_count_are_those_the_job_saw(
    follower, cluster, make_task, result, counted, gpu_s
) -> None:
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    append(task.place.events(0), "start", node="g1", job="1", restarts=0, gpus=["0", "1"])
    begun = read_attempts(task.place.events(0))[0].start.time
    append(task.place.events(0), "end", code=0, elapsed_s=5.0)
    cluster.costs = lambda job: [Cost("COMPLETED", begun, 7.0, 6.0, counted, 300.0)]
    head.look([])
    [cost] = json.loads(result.read_text())["costs"]
    assert cost["gpu_s"] == gpu_s


@pytest.mark.parametrize("accounting", [True, False], ids=["silent", "none"])
def test_without_its_word_the_job_counts_itself(
    follower, cluster, reporter, make_task, result, monkeypatch, accounting
) -> None:
    cluster.accounting = accounting
    monkeypatch.setattr(follow, "_ACCOUNTED_S", 0.0 if accounting else 1e9)
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    begin(task)
    append(task.place.events(0), "end", code=0, elapsed_s=5.0)
    head.look([])
    assert reporter.done == [task]
    [cost] = json.loads(result.read_text())["costs"]
    assert (cost["source"], cost["elapsed_s"], cost["cpu_s"]) == ("job", 5, None)


def test_a_broken_result_breaks_no_study(follower, cluster, reporter, make_task, result) -> None:
    cluster.accounting = False
    result.write_text("{")
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    begin(task)
    append(task.place.events(0), "end", code=0)
    head.look([])
    assert reporter.done == [task]
    assert any("cannot put the job's costs in it" in text for text in reporter.said)


def test_a_second_head_counts_what_the_first_one_lost(follower, cluster, reporter, make_task, result) -> None:
    """A killed job that was sent again, whose head was killed then: both of its submissions are in the result."""
    cluster.accounting = False
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    begin(task)
    head._fail(task, "NODE_FAIL")
    head.look([])
    assert task.attempt == 2
    begin(task)
    again, adopted = follower(), make_task(outputs=[str(result)])
    again.look([adopted])
    assert any("adopted job" in text for text in reporter.said)
    append(adopted.place.events(0), "end", code=0)
    again.look([])
    assert [cost["lost"] for cost in json.loads(result.read_text())["costs"]] == [True, False]


def test_what_ended_with_no_head_there_is_counted_by_the_next(follower, cluster, books, make_task, result) -> None:
    cluster.accounting = False
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    begin(task)
    append(task.place.events(0), "end", code=0)
    assert len(list(follower().finished_alone(()))) == 1
    assert len(json.loads(result.read_text())["costs"]) == 1
    assert len((books.root / "costs.jsonl").read_text().splitlines()) == 1


def test_a_head_that_ends_while_it_waits_for_the_accounting_leaves_a_success_to_the_next(
    follower, cluster, make_task, result
) -> None:
    cluster.obeys = True
    head, task = follower(), make_task(outputs=[str(result)])
    head.look([task])
    begin(task)
    append(task.place.events(0), "end", code=0)
    head.look([])
    head.cancel_all([])
    assert task.member.state == "open"
    assert len(list(follower().finished_alone(()))) == 1
    assert "costs" in json.loads(result.read_text())


def test_a_job_that_is_made_again_starts_from_nothing(books, make_task, enter) -> None:
    task, other = make_task("a"), make_task("b")
    states = ("cancelled", "done", "retried", "cancelled")
    places = [(enter(task), 0) for _ in states]
    for (submission, index), state in zip(places, states, strict=True):
        submission.members[index].state = state
    never_sent, others = (enter(task, job_id=None), 0), (enter(other), 0)
    histories = Histories(submission for submission, _ in [*places, never_sent, others])
    assert histories.before(task.key, task.outputs) == places[2:]
    assert histories.until(*places[1]) == places[:2]
