"""What a job asks of the cluster: from Snakemake's resources to submitit's parameters. No user's text is run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import NAME_RULE, is_name

_FALLBACK_MB, _FALLBACK_MIN = 1000, 60


@dataclass(frozen=True)
class Request:
    """Resources of one job. Equal requests go into one array. memory_mb is the job's own, the overhead not included.

    exclude: nodes that have failed it before, separated by commas.
    """

    memory_mb: int
    minutes: int
    cpus: int
    gpus: int
    partition: str
    account: str
    qos: str
    constraint: str
    gres: str
    exclude: str = ""

    def with_memory(self, factor: float) -> "Request":
        """The same with more memory."""
        return replace(self, memory_mb=round(self.memory_mb * factor))

    def without_node(self, node: str) -> "Request":
        """The same away from one more node."""
        return replace(self, exclude=",".join(sorted({*filter(None, self.exclude.split(",")), node})))

    def parameters(self, overhead_mb: int) -> dict[str, Any]:
        """As submitit's SlurmExecutor takes them, under sbatch's names."""
        found: dict[str, Any] = {
            "mem": f"{self.memory_mb + overhead_mb}MB",
            "time": self.minutes,
            "cpus_per_task": self.cpus,
        }
        named = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint", "exclude")}
        found |= {name: value for name, value in named.items() if value}
        if self.gpus and self.gres:
            found["gres"] = self.gres.replace("{gpus}", str(self.gpus))
        elif self.gpus:
            found["gpus_per_node"] = self.gpus
        return found

    def asdict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def make_request(name: str, resources: Mapping[str, Any], threads: int, settings: ExecutorSettings) -> Request:
    """What a job asks for: its resources, else the site's settings. `name` is the job's, for messages.

    Raises WorkflowError for values that SLURM could not take, before anything is submitted.
    """
    gpus = 0 if settings.no_gpu else _count(name, "gpu", resources.get("gpu", 0), least=0)
    texts = {
        "partition": resources.get("slurm_partition")
        or (settings.gpu_partition if gpus and settings.gpu_partition else settings.partition),
        "account": resources.get("slurm_account") or settings.account,
        "qos": resources.get("slurm_qos") or settings.qos,
        "constraint": resources.get("slurm_constraint") or settings.constraint,
    }
    for what, text in texts.items():
        _check_text(name, what, str(text))
    if settings.gres:
        _check_text(name, "gres", settings.gres.replace("{gpus}", "1"))
    return Request(
        memory_mb=_count(name, "mem_mb", resources.get("mem_mb") or _FALLBACK_MB, least=1),
        minutes=_count(name, "runtime", resources.get("runtime") or _FALLBACK_MIN, least=1),
        cpus=_count(name, "cpus_per_task", resources.get("cpus_per_task") or threads or 1, least=1),
        gpus=gpus,
        gres=settings.gres,
        **{what: str(text) for what, text in texts.items()},
    )


def _count(job: str, what: str, value: object, least: int) -> int:
    try:
        number = int(str(value))
    except (TypeError, ValueError):
        number = least - 1
    if number < least:
        raise WorkflowError(f"job {job}: expected {what} to be a whole number of at least {least}, found {value!r}.")
    return number


def _check_text(job: str, what: str, text: str) -> None:
    if text and not is_name(text):
        raise WorkflowError(
            f"job {job}: expected {what} to hold {NAME_RULE}, found {text!r}. Correct slurm_{what} on the rule or in "
            f"the profile, or submitit-{what} in the profile. Nothing was submitted."
        )
