"""What SLURM says of itself, and what it means for jobs."""

import getpass
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from snakemake_executor_plugin_submitit.cluster.slurm import Answer, ask, ask_config, has_accounting, largest_array
from snakemake_executor_plugin_submitit.site.doctor.finding import Finding
from snakemake_executor_plugin_submitit.site.program import Program

_NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")


@dataclass(frozen=True)
class Partition:
    """A partition as sinfo shows it. gpus: how its nodes spell theirs, such as gpu:a100:4."""

    name: str
    default: bool
    up: bool
    limit: str
    nodes: int
    gpus: tuple[str, ...]


@dataclass
class Site:
    """What was asked of SLURM, and answered. config: empty when the controller is silent."""

    missing: list[str]
    answer: Answer
    client: str
    config: dict[str, str] = field(default_factory=dict)
    partitions: list[Partition] = field(default_factory=list)


def read_site() -> Site | None:
    """Ask SLURM; None where there is no command of it at all."""
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if len(missing) == len(_NEEDED):
        return None
    answer, config = ask_config()
    site = Site(missing, answer, ask("sinfo", "--version").out.strip(), config)
    if config:
        site.partitions = _partitions(ask("sinfo", "-h", "-o", "%P|%a|%l|%D|%G").out)
    return site


def _partitions(text: str) -> list[Partition]:
    found: dict[str, Partition] = {}
    for line in text.splitlines():
        if line.count("|") != 4:
            continue
        name, state, limit, nodes, gres = line.strip().split("|")
        plain = name.rstrip("*")
        before = found.get(plain)
        count = (int(nodes) if nodes.isdigit() else 0) + (before.nodes if before else 0)
        gpus = {*(before.gpus if before else ()), *re.findall(r"gpu(?::[^,(:]+)?:\d+", gres)}
        found[plain] = Partition(plain, name.endswith("*"), state == "up", limit, count, tuple(sorted(gpus)))
    return list(found.values())


def check_slurm(site: Site | None, partition: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    """partition: the one that jobs will go to, where it is known. settings: the site's, as jobs will have them."""
    if site is None:
        advice = (
            "On a machine of your own: snakemake --profile profiles/local. On a cluster: run this on its login node."
        )
        yield Finding("warning", "slurm", "no command of SLURM on PATH", advice)
        return
    if site.missing:
        advice = "Load SLURM's module, or put its commands on PATH."
        yield Finding("problem", "slurm", f"without the command(s) {', '.join(site.missing)}", advice)
    if not site.config:
        advice = "Try again; when it stays so, ask your administrators. Jobs that run go on meanwhile."
        yield Finding("problem", "slurm", f"the controller does not answer: {site.answer.why}", advice)
        return
    yield Finding(
        "ok", "slurm", f"{site.config.get('SLURM_VERSION', 'unknown version')} answers (client: {site.client})"
    )
    yield from _check_partitions(site, partition)
    yield _check_arrays(site.config)
    yield from _check_requeue(site.config)
    yield _check_accounting(site.config)
    yield from _check_accounts(site.config, settings)


def _check_partitions(site: Site, wanted: str) -> Iterator[Finding]:
    for one in site.partitions:
        gpus = f"GPUs {', '.join(one.gpus)}" if one.gpus else "no GPUs"
        text = f"{one.name}{' (default)' if one.default else ''}: limit {one.limit}, {one.nodes} node(s), {gpus}"
        up = "" if one.up else ", not up"
        yield Finding("problem" if up and one.name in wanted.split(",") else "ok", "partition", text + up)
    names = [one.name for one in site.partitions]
    for one_wanted in filter(None, wanted.split(",")):
        if one_wanted not in names:
            advice = "Correct --partition, or submitit-partition and submitit-gpu-partition in the profile."
            yield Finding("problem", "partition", f"expected one of {', '.join(names)}, got {one_wanted!r}", advice)


def check_gpus(site: Site, wanted: str, without: bool, program: Program) -> Iterator[Finding]:
    """wanted: the partition of jobs that ask for GPUs, or several, with commas. without: the profile says no-gpu."""
    with_gpus = [one.name for one in site.partitions if one.gpus]
    if without:
        text = f"the profile says no-gpu: rules that ask for GPUs run without; {', '.join(with_gpus) or 'no partition'}"
        advice = f"To use them: {program.name} profile install slurm --gpu"
        yield (
            Finding("warning", "gpus", f"{text} has some", advice)
            if with_gpus
            else Finding("ok", "gpus", f"{text} shows any")
        )
        return
    if site.partitions and set(with_gpus).isdisjoint(wanted.split(",")):
        others = f"; {', '.join(with_gpus)} has some" if with_gpus else ""
        text = f"jobs that ask for a GPU go to {wanted or 'the default partition'}, which shows none{others}"
        elsewhere = f"{program.name} profile install slurm --gpu-partition {with_gpus[0]}" if with_gpus else ""
        never = f"{program.name} profile install slurm --no-gpu (they then run on the CPU)"
        yield Finding("problem", "gpus", text, f"They will be refused. Say: {elsewhere or never}")
    types = sorted({gpu.split(":")[1] for one in site.partitions for gpu in one.gpus if gpu.count(":") == 2})
    spellings = " or ".join(f"gpu:{name}:{{gpus}}" for name in types) or "gpu:{gpus}"
    select = site.config.get("SelectType", "")
    if with_gpus and select and not select.endswith("cons_tres"):
        advice = f"Set submitit-gres: {spellings}"
        yield Finding("warning", "gpus", f"{select} does not know --gpus-per-node", advice)
    elif with_gpus:
        yield Finding("ok", "gpus", f"--gpus-per-node works; one type only: submitit-gres: {spellings}")


def _check_arrays(config: dict[str, str]) -> Finding:
    size = largest_array(config)
    if size < 2:
        return Finding("warning", "arrays", f"of at most {max(size, 0)} jobs", "Jobs will be submitted one by one.")
    limits = "MaxArraySize, and max_array_tasks of SchedulerParameters"
    return Finding("ok", "arrays", f"up to {size} jobs each ({limits}); larger ones are divided")


def _check_requeue(config: dict[str, str]) -> Iterator[Finding]:
    if config.get("JobRequeue") == "0":
        yield Finding("ok", "requeue", "off by default (JobRequeue 0); our jobs ask for it (--requeue)")
    else:
        yield Finding("ok", "requeue", "allowed (JobRequeue 1): saved jobs go on after a time limit or a lost node")
    mode = config.get("PreemptMode", "OFF")
    if config.get("PreemptType", "preempt/none").endswith("none") or mode == "OFF":
        yield Finding("ok", "preemption", "none")
    elif "CANCEL" in mode:
        advice = "They are sent again by the executor, up to submitit-retries times."
        yield Finding(
            "warning", "preemption", "preempted jobs are cancelled, not requeued (PreemptMode CANCEL)", advice
        )
    elif "preempt_send_user_signal" in config.get("SlurmctldParameters", ""):
        yield Finding("ok", "preemption", f"{mode}; preempted jobs are told by SIGUSR2, and save")
    else:
        yield Finding("ok", "preemption", f"{mode}; preempted jobs are told by SIGTERM, on which trainings save too")


def _check_accounting(config: dict[str, str]) -> Finding:
    own = "Costs will be taken from the jobs' own notes."
    if not has_accounting(config):
        return Finding("ok", "accounting", f"none. {own}")
    kind = config["AccountingStorageType"]
    if shutil.which("sacct") is None:
        return Finding("warning", "accounting", f"{kind}, but no command sacct", own)
    answer = ask("sacct", "-X", "-n", "-P", "-o", "JobID", "-S", "now-1minutes")
    if not answer.ok:
        advice = f"{own} A job that is lost without a word is noticed later."
        return Finding("warning", "accounting", f"{kind}, but sacct fails: {answer.why}", advice)
    return Finding("ok", "accounting", f"{kind}, and sacct answers: costs will be taken from it")


def _check_accounts(config: Mapping[str, str], settings: Mapping[str, str]) -> Iterator[Finding]:
    if not config.get("AccountingStorageType", "").endswith("slurmdbd"):
        return
    enforced = config.get("AccountingStorageEnforce", "")
    rows = _associations(config, "account,qos,maxsubmitjobs")
    accounts = sorted({row[0] for row in rows or []})
    qos = sorted({name for row in rows or [] for name in row[1].split(",") if name})
    wanted = settings.get("account", "")
    if accounts and wanted and wanted not in accounts and "associations" in enforced:
        advice = "Correct submitit-account in the profile (or SBATCH_ACCOUNT)."
        yield Finding("problem", "accounts", f"expected one of {', '.join(accounts)}, got {wanted!r}", advice)
    elif accounts:
        yield Finding("ok", "accounts", f"{', '.join(accounts)}; QoS {', '.join(qos) or 'none'}")
    elif "associations" in enforced and rows is not None:
        yield Finding("problem", "accounts", "you have none, and jobs need one", "Ask your administrators for one.")
    else:
        yield Finding("ok", "accounts", "none known; jobs go without")
    if "wckeys" in enforced:
        named = settings.get("wckey", "")
        text = f"jobs carry {named!r}" if named else "jobs carry none but your default one; another: submitit-wckey"
        yield Finding("ok", "wckeys", f"enforced here: {text}")
    if "limits" in enforced:
        yield _check_submit_limits(rows or [], wanted, settings.get("qos", ""))


def _associations(config: Mapping[str, str], fields: str) -> list[list[str]] | None:
    """This user's rows of the accounting on this cluster, those with an account; None without an answer."""
    where = [f"user={getpass.getuser()}", *([f"cluster={config['ClusterName']}"] if config.get("ClusterName") else [])]
    answer = ask("sacctmgr", "-n", "-P", "show", "assoc", *where, f"format={fields}")
    rows = [line.split("|") for line in answer.out.splitlines() if line.count("|") == fields.count(",")]
    return [row for row in rows if row[0]] if answer.ok else None


def _check_submit_limits(rows: list[list[str]], account: str, qos: str) -> Finding:
    """How many jobs one may have there, as far as the accounting says it: by the user's accounts and QoS."""
    limits = {f"account {row[0]}": row[2] for row in rows if account in ("", row[0])}
    names = {name for row in rows for name in row[1].split(",") if name and qos in ("", name)}
    answer = ask("sacctmgr", "-n", "-P", "show", "qos", "format=name,maxsubmitjobsperuser")
    found = (line.split("|") for line in answer.out.splitlines() if line.count("|") == 1)
    limits |= {f"QoS {name}": limit for name, limit in found if name in names}
    told = [f"{limit} ({name})" for name, limit in sorted(limits.items()) if limit.isdigit()]
    if not told:
        return Finding("ok", "submit limit", "none known")
    return Finding("ok", "submit limit", f"{', '.join(told)} jobs at once; the head keeps below, and sends as jobs end")
