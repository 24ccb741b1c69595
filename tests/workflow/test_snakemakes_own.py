"""Snakemake's own tests of executors, on the executor without SLURM."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings

ROOT = Path(__file__).resolve().parents[2]


class TestOnThisMachine(TestWorkflowsLocalStorageBase):
    """The tests are Snakemake's: a simple workflow, and one with groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def surroundings(self, monkeypatch, tmp_path) -> Iterator[None]:
        """Jobs find this checkout; the working folder and the signals are as before afterwards."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(cluster="local", poll=0.5)
