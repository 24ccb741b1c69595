"""What the executor leans on in Snakemake and submitit beyond their documented interfaces is still there.

A failure here means that a new version moved something: adapt the executor, or keep the older version in pyproject.
"""

import asyncio
import inspect
import tomllib
from importlib.metadata import version

import pytest
import snakemake.api  # first: the modules below import each other
import snakemake.dag
import snakemake.jobs
import snakemake.persistence
import snakemake.resources
import snakemake.rules
import snakemake.scheduling.job_scheduler
import submitit
from packaging.requirements import Requirement
from snakemake_interface_executor_plugins.executors.real import RealExecutor
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
from submitit.core import job_environment, utils
from submitit.local import local

import snakemake_executor_plugin_submitit as plugin

NEEDED = {
    RemoteExecutor: ["run_jobs", "check_active_jobs", "sleep", "cancel", "cancel_jobs", "shutdown", "_wait_thread"],
    RealExecutor: ["get_job_args", "format_job_exec", "additional_general_args"],
    snakemake.persistence.PersistenceBase: ["locked", "started", "finished", "path"],
    snakemake.dag.DAG: ["needrun_jobs", "jobs"],
    snakemake.rules.Rule: ["is_producer"],
    snakemake.scheduling.job_scheduler.JobScheduler: ["exit_gracefully"],
    snakemake.jobs.Job: ["register", "get_wait_for_files", "wildcards_dict", "is_run"],
    snakemake.resources.GroupResources: ["basic_layered"],
    snakemake.resources.Resources: ["from_mapping", "get"],
    utils.DelayedSubmission: ["set_timeout", "dump"],
    submitit.LocalExecutor: ["_submit_command", "submit"],
    job_environment.SignalHandler: ["checkpoint_and_try_requeue"],
    utils.JobPaths: ["stdout", "submitted_pickle"],
}


@pytest.mark.parametrize("owner", NEEDED, ids=lambda owner: owner.__name__)
def test_the_names_are_there(owner: type) -> None:
    missing = [name for name in NEEDED[owner] if not hasattr(owner, name)]
    assert not missing, f"{owner.__module__}.{owner.__name__} no longer has {missing}"


def test_a_signals_handler_still_asks_the_command_to_save() -> None:
    text = inspect.getsource(job_environment)
    assert "_checkpoint_function()" in text
    assert "checkpoint function returned None" in text
    assert issubclass(utils.UncompletedJobError, Exception)


def test_the_local_controller_still_reads_these_variables() -> None:
    text = inspect.getsource(local.Controller)
    for name in ("NTASKS", "COMMAND", "TIMEOUT_S", "SIGNAL_DELAY_S", "WITH_SHELL"):
        assert f"SUBMITIT_LOCAL_{name}" in text, f"submitit's local controller no longer reads SUBMITIT_LOCAL_{name}"


def test_the_base_class_still_starts_its_thread_before_the_executor_is_ready() -> None:
    text = inspect.getsource(RemoteExecutor.__init__)
    assert text.index("wait_thread.start()") < text.index("__post_init__()")


def test_snakemakes_scheduler_still_cancels_on_a_keyboard_interrupt() -> None:
    text = inspect.getsource(snakemake.scheduling.job_scheduler.JobScheduler.schedule)
    assert "except (KeyboardInterrupt, SystemExit):" in text
    assert "self._executor.cancel()" in text


@pytest.mark.parametrize("package", ["snakemake", "submitit", "snakemake-interface-executor-plugins"])
def test_installed_versions_are_within_the_declared_ranges(pytestconfig, package: str) -> None:
    project = tomllib.loads((pytestconfig.rootpath / "pyproject.toml").read_text())["project"]
    found = next(r for r in map(Requirement, project["dependencies"]) if r.name == package)
    assert found.specifier.contains(version(package)), f"{package} {version(package)} is outside {found.specifier}"


def test_snakemake_finds_the_executor() -> None:
    registry = ExecutorPluginRegistry()
    found = registry.get_plugin("submitit")
    assert found.executor is plugin.Executor
    assert found.common_settings.non_local_exec


def test_the_second_thread_waits_for_the_executor_to_be_made() -> None:
    asyncio.run(plugin.Executor.sleep(plugin.Executor.__new__(plugin.Executor)))  # before __post_init__
