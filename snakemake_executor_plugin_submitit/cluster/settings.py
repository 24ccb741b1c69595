"""What a site or a user may set: `--submitit-…` on the command line, `submitit-…:` in a profile."""

from dataclasses import dataclass, field
from typing import Any

from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

ON_SIGNAL = ("cancel", "leave")


def _setting(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    metadata = {"help": help} if choices is None else {"help": help, "choices": choices}
    return field(default=default, metadata=metadata | ({} if isinstance(default, str) else {"type": type(default)}))


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """Settings of the executor; every one has a default that works."""

    cluster: str = _setting(
        "slurm", "slurm, or local: the same path on this machine, without SLURM", ("slurm", "local")
    )
    poll: float = _setting(10.0, "seconds between two looks at the queue")
    signal_delay: int = _setting(120, "seconds between SIGUSR2 and the time limit: SLURM may send it 30 s early")
    save_time: int = _setting(60, "of no effect, taken for older profiles: a script may save until its time limit")
    retries: int = _setting(3, "how often a job is sent again after a passing failure (node, preemption, lost job)")
    backoff: float = _setting(30.0, "seconds before the first retry and the first new try at sbatch; doubles each time")
    memory_growth: float = _setting(
        1.0, "a job out of memory is sent again with this many times as much; 1: it has failed"
    )
    lost_after: float = _setting(
        60.0, "seconds that a job may be unknown to SLURM, without a result, before it counts as lost"
    )
    max_requeues: int = _setting(200, "how often one job may save at its time limit and be requeued")
    memory_overhead_mb: int = _setting(400, "added to mem_mb for Snakemake's and submitit's own processes on the node")
    array_parallelism: int = _setting(256, "jobs of one array that may run at once")
    max_array_size: int = _setting(0, "largest array; 0: what the controller says (MaxArraySize)")
    partition: str = _setting("", "partition of jobs that ask for none (resource slurm_partition); empty: the default")
    gpu_partition: str = _setting("", "partition of jobs with gpu > 0 that ask for none; empty: as above")
    account: str = _setting("", "account of jobs that ask for none (resource slurm_account); empty: your default")
    qos: str = _setting("", "QoS of jobs that ask for none (resource slurm_qos); empty: your default")
    constraint: str = _setting("", "features that nodes must have (resource slurm_constraint); empty: any")
    wckey: str = _setting(
        "", "workload characterisation key (resource slurm_wckey), where sites ask for one; empty: none"
    )
    gres: str = _setting(
        "", "how the site spells GPUs, with {gpus} for their number: gpu:a100:{gpus}; empty: --gpus-per-node"
    )
    no_gpu: bool = _setting(False, "the site has no GPUs: rules that ask for some run without")
    jobs_per_gpu: int = _setting(1, "jobs of a group that run side by side on each of its GPUs; 1: they take turns")
    setup: str = _setting("", "shell lines run on the node before anything else: module load …, source …")
    python: str = _setting("", "command that starts Python on the node, such as a container's; empty: this Python")
    sources: str = _setting(
        "",
        "code that jobs run beside the Snakefiles and scripts: files and folders, separated by commas, beside the "
        "Snakefile; a job that finds them edited since it was planned says so",
    )
    on_interrupt: str = _setting("cancel", "what Ctrl-C does to the jobs; left ones are adopted later", ON_SIGNAL)
    on_terminate: str = _setting("leave", "what SIGTERM does to the jobs", ON_SIGNAL)
    on_hangup: str = _setting("leave", "what SIGHUP (a lost connection) does to the jobs", ON_SIGNAL)
    local_gpus: str = _setting("", "cluster local: ids of the GPUs shared out, such as 0,1; empty: none")
    costs_into: str = _setting(
        "", "names of JSON outputs, such as a.json,b.json: what the job used is written into them, under the key costs"
    )
    keep_days: float = _setting(14.0, "logs and records of finished jobs are removed after so many days")
