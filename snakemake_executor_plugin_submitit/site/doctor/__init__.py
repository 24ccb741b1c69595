"""What a site offers and what it lacks, before a study is sent there.

It may call SLURM's commands, as lists of words, never through a shell.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from snakemake_executor_plugin_submitit.cluster.environment import from_environment
from snakemake_executor_plugin_submitit.site.doctor.finding import Finding
from snakemake_executor_plugin_submitit.site.doctor.place import check_place
from snakemake_executor_plugin_submitit.site.doctor.probe import Target, check_node
from snakemake_executor_plugin_submitit.site.doctor.slurm import Site, check_gpus, check_slurm, read_site
from snakemake_executor_plugin_submitit.site.doctor.software import check_software, read_profile
from snakemake_executor_plugin_submitit.site.program import Program

__all__ = ["Finding", "examine"]


def no_more(_scratch: Path) -> Iterator[Finding]:
    """No checks of the program's own."""
    return iter(())


def examine(
    program: Program,
    partition: str = "",
    profile: str = "slurm",
    probe: bool = True,
    wait_s: float = 120.0,
    more: Callable[[Path], Iterator[Finding]] = no_more,
) -> Iterator[Finding]:
    """Check this host, the working folder, SLURM, and one of its nodes; each finding as soon as it is known.

    partition: where the probe goes; empty: the profile's, else SLURM's default. wait_s: how long the probe may be
    pending before it is taken back. more: the program's own checks of what this file system can do, made in a scratch
    folder.
    """
    folder = Path.cwd()
    settings, told = read_profile(profile, program)
    yield from check_software(program)
    yield told
    site = read_site()
    probing = probe and site is not None
    yield from check_place(folder, shared_matters=site is not None, probed=probing, program=program, more=more)
    if site is None:
        yield from check_slurm(None, "", {})
        return
    found, said = from_environment(settings)
    yield from (Finding("ok", "environment", text) for text in said or ["no variable of SLURM changes what jobs get"])
    settings |= found
    target = choose_target(site, settings, partition)
    yield from check_slurm(site, partition or target.partition, settings)
    if site.partitions:
        yield from check_gpus(site, choose_target(site, settings, "").partition, target.without_gpus, program)
    if not probe:
        yield Finding("ok", "probe", "not asked for (--no-probe): what nodes see of this folder is not known")
    elif "%" in str(folder):
        yield Finding("warning", "probe", "not sent, since SLURM would misread the folder's %")
    else:
        yield from check_node(folder, target, wait_s, program)


def choose_target(site: Site, settings: dict[str, str], partition: str) -> Target:
    """Where the probe goes and what it asks for: one GPU where the partition has any."""
    standard = next((one.name for one in site.partitions if one.default), "")
    without = settings.get("no-gpu") == "true"
    special = "" if without else settings.get("gpu-partition")
    name = partition or special or settings.get("partition") or standard
    with_gpus = {one.name for one in site.partitions if one.gpus}
    return Target(name, not without and not with_gpus.isdisjoint(name.split(",")), settings)
