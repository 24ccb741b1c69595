"""Who is told what becomes of the jobs."""

from pathlib import Path
from typing import Protocol

from snakemake_executor_plugin_submitit.task import Task


class Reporter(Protocol):
    """Snakemake's side, as the follower needs it."""

    def say(self, text: str) -> None:
        """A line for the user."""

    def makes(self, outputs: list[str]) -> bool:
        """Whether the workflow, as it is now configured, could make these files."""

    def submitted(self, task: Task) -> None:
        """A job has a place on the cluster."""

    def succeeded(self, task: Task) -> None:
        """A job is done."""

    def failed(self, task: Task, text: str, log: Path | None, end: str) -> None:
        """A job has failed for good. end: the last of its log."""
