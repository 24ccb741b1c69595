"""What a group of jobs asks for."""

from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.head.task import ids_of, resources_of


def group(*levels: list[dict[str, Any]]) -> SimpleNamespace:
    """Jobs that ask for these resources; those of a level wait for all of the level before."""
    rule = SimpleNamespace(name="train")
    jobs = [[SimpleNamespace(resources=asked, pipe_group=None, rule=rule) for asked in level] for level in levels]
    return SimpleNamespace(is_group=lambda: True, jobs=list(chain(*jobs)), toposorted=jobs)


TRAINING = {"gpu": 1, "mem_mb": 8000, "_cores": 2, "runtime": 100}


@pytest.mark.parametrize(("jobs_per_gpu", "at_once"), [(1, 1), (2, 2), (4, 4), (8, 4)])
def test_the_jobs_of_a_group_share_one_gpu(jobs_per_gpu: int, at_once: int) -> None:
    found = resources_of(group([TRAINING] * 4), jobs_per_gpu)
    assert found["gpu"] == 1
    assert (found["mem_mb"], found["_cores"], found["runtime"]) == (8000 * at_once, 2 * at_once, 100 * 4 // at_once)


def test_they_share_the_gpus_of_the_one_that_asks_for_most() -> None:
    found = resources_of(group([TRAINING, {**TRAINING, "gpu": 2}], [TRAINING]), 2)
    assert (found["gpu"], found["mem_mb"]) == (2, 16000)


def test_a_group_without_gpus_asks_for_none() -> None:
    found = resources_of(group([{"gpu": 0, "mem_mb": 1000, "_cores": 1, "runtime": 10}] * 3), 2)
    assert found["gpu"] == 0
    assert resources_of(group([{"mem_mb": 1000, "_cores": 1, "runtime": 10}]), 2).get("gpu", 0) == 0


def test_what_each_job_of_a_group_says_is_not_added_up() -> None:
    """Memory for a processor, and that each is one process."""
    asked = {"mem_mb_per_cpu": 2000, "_cores": 4, "tasks": 1, "nodes": 1, "runtime": 10}
    found = resources_of(group([asked] * 4))
    assert (found["mem_mb_per_cpu"], found["_cores"], found["tasks"], found["nodes"]) == (2000, 16, 1, 1)


def test_gpus_in_gres_are_refused_where_the_jobs_of_a_group_would_share_them() -> None:
    asked = {"gres": "gpu:1", "_cores": 4, "runtime": 10}
    assert resources_of(group([asked]))["gres"] == "gpu:1"
    with pytest.raises(WorkflowError, match=r"group train: expected gpu, the number of GPUs, found gres='gpu:1'"):
        resources_of(group([asked] * 2))


@pytest.mark.parametrize(
    ("wanted", "closed", "ids", "one_by_one"),
    [
        ([0, 1, 2, 3, 4], [], ["7"], ["7"]),
        ([0, 1, 3], [], ["'7_[0-1,3]'"], ["7_0", "7_1", "7_3"]),
        ([2], [], ["7_2"], ["7_2"]),
        ([0, 1, 3], [2, 4], ["7"], ["7"]),
    ],
)
def test_ids_name_these_jobs_and_no_other(make_task, enter, wanted, closed, ids, one_by_one) -> None:
    tasks = [make_task(str(number)) for number in range(5)]
    submission = enter(*tasks)
    for number, task in enumerate(tasks):
        task.settle(submission, number)
    for number in closed:
        submission.members[number].state = "done"
    chosen = [tasks[number] for number in wanted]
    assert (ids_of(chosen), ids_of(chosen, brackets=False)) == (ids, one_by_one)
