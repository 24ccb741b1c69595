"""What runs on the node around a job: a command that passes signals on and saves, and the inner Snakemake."""

from snakemake_executor_plugin_submitit.node.command import Command

__all__ = ["Command"]  # jobs that were submitted before this was a folder load it by this name
