"""What is sent, when it is sent again, and what a machine that cannot do its part is told."""

from snakemake_executor_plugin_submitit.cluster.local import Local
from snakemake_executor_plugin_submitit.head import dispatch
from snakemake_executor_plugin_submitit.head.dispatch import Dispatcher


def test_a_pause_has_an_end_however_often_it_was_in_vain(books, settings, cluster, reporter) -> None:
    settings.backoff = 30.0
    pauses = [Dispatcher(books, settings, "scope", cluster, reporter).pause(tries) for tries in (1, 2, 3, 5000)]
    assert pauses[:3] == [30, 60, 120]
    assert pauses[3] == max(pauses) == 3600


def test_a_machine_that_cannot_start_a_job_is_asked_again_and_the_head_lives(
    books, settings, reporter, make_task, monkeypatch
) -> None:
    def full(*_) -> str:
        raise OSError(28, "No space left on device")

    dispatcher = Dispatcher(books, settings, "scope", Local(books.root, []), reporter)
    dispatcher.waiting.append(make_task())
    with monkeypatch.context() as broken:
        broken.setattr(dispatch, "send_to_this_machine", full)
        assert dispatcher.send({}, []) == []
    assert "No space left" in books.trouble
    assert books.read() == ([], [])
    monkeypatch.setattr(dispatch, "send_to_this_machine", lambda *_: "41")
    assert [task.id for task in dispatcher.send({}, [])] == ["41"]


def test_a_gpu_of_a_job_that_an_earlier_head_left_is_taken(
    books, settings, reporter, make_task, enter, monkeypatch
) -> None:
    """Nobody has asked for that job yet, in this head."""
    left = enter(make_task("left"))
    left.extra.gpus = ["0"]
    given = []
    monkeypatch.setattr(
        dispatch, "send_to_this_machine", lambda local, one, command, gpus, *_: given.append(gpus) or "41"
    )
    local = Local(books.root, ["0", "1"])
    local.cpus = 8
    dispatcher = Dispatcher(books, settings, "scope", local, reporter)
    dispatcher.waiting += [make_task("a"), make_task("b")]
    assert len(dispatcher.send({}, [], [left])) == 1
    assert given == [["1"]]
