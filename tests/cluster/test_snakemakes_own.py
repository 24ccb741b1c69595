"""Snakemake's own tests of executors, on SLURM."""

import os
import signal
from collections.abc import Iterator

import pytest
from harness import ROOT
from snakemake.common.tests import TestWorkflowsLocalStorageBase

from snakemake_executor_plugin_submitit import ExecutorSettings


class TestOnSlurm(TestWorkflowsLocalStorageBase):
    """The tests are Snakemake's: a simple workflow, and one with groups."""

    __test__ = True

    @pytest.fixture(autouse=True)
    def surroundings(self, cluster, monkeypatch, tmp_path) -> Iterator[None]:
        """The cluster's environment; the working folder and the signals are as before afterwards."""
        monkeypatch.chdir(tmp_path)
        for name, value in cluster.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.getsignal(number) for number in numbers}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def get_executor(self) -> str:
        return "submitit"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(poll=1.0, account="ci", partition="cpu")
