"""Snakemake executor `submitit`: jobs that are ready together go to SLURM as arrays that save, requeue and resume.

It knows nothing of the workflow that it runs. `snakemake --help` describes its settings; the README has a section.

* `head/`: what runs in Snakemake's own process: takes jobs in, sends, adopts and follows them.
* `node/`: what runs on the node around a job.
* `cluster/`: what is asked of SLURM, or of this machine in its place, and how the answers are read.
* `books/`: the files that tell what was submitted, what happened and what it used.
* `site/`: tools for the user of a cluster: install a profile, examine the site. The other folders do not need them.
"""

from snakemake_interface_executor_plugins.settings import CommonSettings

from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.head.executor import Executor

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=False,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=True,
    auto_deploy_default_storage_provider=False,
)
