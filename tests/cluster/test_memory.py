"""A job out of memory: the message says so, and it is sent again with more where the settings ask for that."""

import re

import pytest
from harness import models


@pytest.fixture
def greedy(workflow):
    """A training that takes 450 MB and asks for 100; Snakemake itself gets 400 more."""
    workflow.runs = {"a": {"epochs": 8, "allocate_mb": 450}}
    return workflow


def check_cause(head) -> None:
    """The console names the memory asked and used."""
    cause = re.search(
        r"out of memory on g\d: asked (\d+) MB \(and (\d+) MB [^)]*\), seen to use (\d+) MB", head.output()
    )
    assert cause, head.tail()
    asked, overhead, used = map(int, cause.groups())
    assert (asked, overhead) == (100, 400)
    assert used > 400


def test_with_memory_growth_it_is_sent_again_with_more(greedy) -> None:
    greedy.profile["submitit-memory-growth"] = 6
    head = greedy.head(*models("a"))
    assert head.wait(120) == 0
    check_cause(head)
    assert "Sending it again with 600 MB" in head.output()
    greedy.check_trained_once()
    first, second = greedy.starts("a")
    assert (first["epoch"], second["epoch"] >= 2) == (0, True)
    [cost] = greedy.costs()
    assert [attempt["lost"] for attempt in cost["attempts"]] == [True, False]


@pytest.mark.slow
def test_without_it_fails_and_a_person_gives_more(greedy) -> None:
    head = greedy.head(*models("a"))
    assert head.wait(90) == 1
    check_cause(head)
    trained = len(greedy.epochs("a"))
    assert trained >= 2
    greedy.runs["a"]["mem_mb"] = 800
    assert greedy.head(*models("a")).wait(60) == 0
    greedy.check_trained_once()
    assert greedy.model("a")["starts"] == [0, trained]
