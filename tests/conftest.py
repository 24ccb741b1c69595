"""One thread for every test: small tensors gain nothing from more, and threads that wait for each other lose a lot."""

import gc
import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import typecheck


def pytest_collection_finish() -> None:
    """Python's collector of garbage need not walk through all that was imported: a tenth of the time of the tests."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test's own small networks are the same in every session; the fixtures' too, which are made after this."""
    typecheck.begin_test()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # numba, which dcor imports, sets the number of cores for the whole process
