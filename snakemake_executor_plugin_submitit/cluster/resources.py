"""What a job asks of the cluster: from Snakemake's resources to submitit's parameters. No user's text is run."""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError

from snakemake_executor_plugin_submitit.cluster.settings import ExecutorSettings
from snakemake_executor_plugin_submitit.cluster.slurm import NAME_RULE, is_name

_FALLBACK_MB, _FALLBACK_MIN = 1000, 60
# Resources that SLURM's own Snakemake plugin reads, and that would be lost here without a word.
_ONE_PROCESS = "a job is one process on one node here; for more processors use threads, for MPI another executor"
_REFUSED = {
    "clusters": "the head follows jobs on its own cluster only: run it there",
    "cluster": "the head follows jobs on its own cluster only: run it there",
    "mpi": _ONE_PROCESS,
    "cpus_per_gpu": "use threads or cpus_per_task",
}
_ONE_AT_MOST = ("nodes", "tasks", "tasks_per_node", "tasks_per_gpu")
_READ = frozenset(f"slurm_{name}" for name in ("account", "partition", "qos", "constraint", "wckey", "extra"))
# What slurm_extra must leave alone: the executor sets it, or could not follow the job. Long names may be cut short.
_OWN = (
    *("job-name", "output", "error", "input", "array", "parsable", "wrap", "requeue", "no-requeue"),
    *("open-mode", "signal", "export", "export-file", "chdir", "mem", "mem-per-cpu", "mem-per-gpu"),
    *("time", "cpus-per-task", "nodes", "ntasks", "ntasks-per-node", "partition", "account", "qos"),
    *("constraint", "wckey", "gres", "gpus-per-node", "gpus", "comment", "clusters", "wait", "test-only"),
    *("uid", "gid", "version", "help"),
)
_EXCLUDE = re.compile(r"(?:--exclude=|-x )(.+)")
_OWN_SHORT = frozenset("JoeiaDtcNnpAqCGMWVh")


@dataclass(frozen=True)
class Request:
    """Resources of one job. Equal requests go into one array.

    memory_mb is the job's own, the overhead not included. gpus: their number, however they are asked for: `gres` and
    `gpus_per_node` are as sbatch takes them. extra: further options of sbatch. exclude: nodes and lists of nodes that
    it keeps away from, those that have failed it before among them.
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
    gpus_per_node: str = ""
    wckey: str = ""
    extra: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def with_memory(self, factor: float) -> "Request":
        """The same with more memory."""
        return replace(self, memory_mb=round(self.memory_mb * factor))

    def without_node(self, node: str) -> "Request":
        """The same away from one more node."""
        return replace(self, exclude=tuple(sorted({*self.exclude, node})))

    def with_nodes(self, nodes: Iterable[str]) -> "Request":
        """The same, where it may use these nodes again."""
        return replace(self, exclude=tuple(node for node in self.exclude if node not in set(nodes)))

    def parameters(self, overhead_mb: int) -> dict[str, Any]:
        """Options of sbatch, name → value, without `extra`."""
        found: dict[str, Any] = {
            "mem": f"{self.memory_mb + overhead_mb}MB",
            "time": self.minutes,
            "cpus_per_task": self.cpus,
            "exclude": ",".join(self.exclude),
        }
        names = ("partition", "account", "qos", "constraint", "wckey", "gres", "gpus_per_node")
        found |= {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value}

    def asdict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def make_request(name: str, resources: Mapping[str, Any], threads: int, settings: ExecutorSettings) -> Request:
    """What a job asks for: its resources, else the site's settings. `name` is the job's, for messages.

    Raises WorkflowError for values that SLURM could not take, before anything is submitted.
    """
    _refuse_unread(name, resources)
    gpus, gres, gpus_per_node = _gpus(name, resources, settings)
    texts = {
        "partition": resources.get("slurm_partition")
        or (settings.gpu_partition if gpus and settings.gpu_partition else settings.partition),
        "account": resources.get("slurm_account") or settings.account,
        "qos": resources.get("slurm_qos") or resources.get("qos") or settings.qos,
        "constraint": resources.get("slurm_constraint") or resources.get("constraint") or settings.constraint,
        "wckey": resources.get("slurm_wckey") or settings.wckey,
        "gres": gres,
        "gpus_per_node": gpus_per_node,
    }
    for what, text in texts.items():
        _check_text(name, what, str(text))
    cpus = _count(name, "cpus_per_task", resources.get("cpus_per_task") or threads or 1, least=1)
    if resources.get("mem_mb_per_cpu"):
        memory_mb = cpus * _count(name, "mem_mb_per_cpu", resources["mem_mb_per_cpu"], least=1)
    else:
        memory_mb = _count(name, "mem_mb", _given(resources, "mem_mb", _FALLBACK_MB), least=1)
    extra = _extra(name, str(resources.get("slurm_extra") or ""))
    # With the nodes that failed it, since sbatch takes the last --exclude alone.
    excluded = {option: found[1] for option in extra if (found := _EXCLUDE.match(" ".join(shlex.split(option))))}
    return Request(
        memory_mb=memory_mb,
        minutes=_count(name, "runtime", _given(resources, "runtime", _FALLBACK_MIN), least=1),
        cpus=cpus,
        gpus=gpus,
        extra=tuple(option for option in extra if option not in excluded),
        exclude=tuple(excluded.values()),
        **{what: str(text) for what, text in texts.items()},
    )


def _refuse_unread(job: str, resources: Mapping[str, Any]) -> None:
    """What would be dropped is named instead."""
    for name in resources.keys():  # noqa: SIM118 (Snakemake's own kind of mapping)
        value = resources.get(name)
        why = _REFUSED.get(name, "")
        if name.startswith("slurm_") and name not in _READ:
            why = f"read are {', '.join(sorted(_READ))}; options of sbatch can go into slurm_extra"
        elif name in _ONE_AT_MOST and value not in (0, 1, "0", "1"):
            why = _ONE_PROCESS
        if why and value:
            raise WorkflowError(
                f"job {job}: expected no resource {name}, found {value!r}: {why}. Nothing was submitted."
            )


def _gpus(job: str, resources: Mapping[str, Any], settings: ExecutorSettings) -> tuple[int, str, str]:
    """Their number, and what --gres and --gpus-per-node are to say."""
    gpus = _count(job, "gpu", resources.get("gpu") or 0, least=0)
    model, gres = str(resources.get("gpu_model") or ""), str(resources.get("gres") or "")
    asked = [re.split(r"[:=]", one) for one in gres.split(",")]
    if settings.no_gpu:
        others = [one for one, parts in zip(gres.split(","), asked, strict=True) if parts[0] not in ("gpu", "shard")]
        return 0, ",".join(others), ""
    found = [int(parts[-1]) if parts[-1].isdecimal() else 1 for parts in asked if parts[0] == "gpu"]
    if gpus and found:
        raise WorkflowError(f"job {job}: expected gpu or gres with gpu, found gpu={gpus} and gres={gres!r}. Say one.")
    if model and not gpus:
        raise WorkflowError(f"job {job}: expected gpu, the number of GPUs, beside gpu_model, found {model!r} alone.")
    if found:
        return sum(found), gres, ""
    if not gpus:
        return 0, gres, ""
    if not settings.gres:
        return gpus, gres, f"{model}:{gpus}" if model else str(gpus)
    spelt = f"gpu:{model}:{gpus}" if model else settings.gres.replace("{gpus}", str(gpus))
    return gpus, f"{gres},{spelt}" if gres else spelt, ""


def _extra(job: str, text: str) -> tuple[str, ...]:
    """Options of sbatch as a rule gives them, each as a line of the batch file takes it."""
    try:
        words = shlex.split(text)
        if len(words) == 1 and text.startswith(("'", '"')):  # quoted as a whole, as for SLURM's plugin
            words = shlex.split(words[0])
    except ValueError as error:
        raise WorkflowError(
            f"job {job}: expected options of sbatch in slurm_extra, found {text!r} ({error}). Nothing was submitted."
        ) from None
    options: list[str] = []
    for word in words:
        if re.fullmatch(r"--[a-z][a-z0-9-]*(=.*)?|-[A-Za-z]", word):
            option, equals, value = word.partition("=")
            plain = option.lstrip("-")
            if plain in _OWN_SHORT if len(plain) == 1 else any(own.startswith(plain) for own in _OWN):
                raise WorkflowError(
                    f"job {job}: expected slurm_extra without {option}: the executor sets it, from the rule's "
                    "resources and the profile. Nothing was submitted."
                )
            options.append(f"{option}={shlex.quote(value)}" if equals else option)
        elif options and "=" not in options[-1] and " " not in options[-1] and word.isprintable() and word[0] != "-":
            options[-1] += f"{'=' if options[-1].startswith('--') else ' '}{shlex.quote(word)}"
        else:
            raise WorkflowError(
                f"job {job}: expected options of sbatch in slurm_extra, such as --nodelist=n1, found {word!r}. "
                "Nothing was submitted."
            )
    return tuple(options)


def _given(resources: Mapping[str, Any], name: str, absent: int) -> Any:
    """What a rule says, also where that is 0, which is refused; Snakemake's word for nothing is empty."""
    value = resources.get(name)
    return absent if value is None or value == "" else value


def _count(job: str, what: str, value: object, least: int) -> int:
    try:
        number = int(str(value))
    except (TypeError, ValueError):
        number = least - 1
    if number < least:
        raise WorkflowError(
            f"job {job}: expected {what} to be a whole number of at least {least}, found {value!r}. Correct the rule's "
            "resource, or leave it out. Nothing was submitted."
        )
    return number


def _check_text(job: str, what: str, text: str) -> None:
    if text and not is_name(text):
        raise WorkflowError(
            f"job {job}: expected {what} to hold {NAME_RULE}, found {text!r}. Correct the resource of the "
            f"rule, submitit-{what} in the profile, or SBATCH_{what.upper()}. Nothing was submitted."
        )
