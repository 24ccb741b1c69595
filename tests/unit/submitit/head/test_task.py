"""What a group of jobs asks for."""

from itertools import chain
from types import SimpleNamespace

import pytest

from snakemake_executor_plugin_submitit.head.task import resources_of


def group(*levels: list[dict[str, int]]) -> SimpleNamespace:
    """Jobs that ask for these resources; those of a level wait for all of the level before."""
    jobs = [[SimpleNamespace(resources=asked, pipe_group=None) for asked in level] for level in levels]
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
