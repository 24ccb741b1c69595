"""What a site offers and what it lacks, before a study is sent there: `cem doctor`.

Nothing of the pipeline depends on this package. It may call SLURM's commands, as lists of words, never through a shell.
"""

from collections.abc import Iterator
from pathlib import Path

from cem.doctor.finding import Finding
from cem.doctor.place import check_place
from cem.doctor.probe import Target, check_node
from cem.doctor.slurm import Site, check_slurm, read_site
from cem.doctor.software import check_software, read_profile

__all__ = ["Finding", "examine"]


def examine(
    partition: str = "", profile: str = "slurm", probe: bool = True, wait_s: float = 120.0
) -> Iterator[Finding]:
    """Check this host, the working folder, SLURM, and one of its nodes; each finding as soon as it is known.

    partition: where the probe goes; empty: the profile's, else SLURM's default. wait_s: how long the probe may be
    pending before it is taken back.
    """
    folder = Path.cwd()
    settings, told = read_profile(profile)
    yield from check_software()
    yield told
    site = read_site()
    probing = probe and site is not None
    yield from check_place(folder, shared_matters=site is not None, probed=probing)
    if site is None:
        yield from check_slurm(None, "")
        return
    target = choose_target(site, settings, partition)
    yield from check_slurm(site, partition or target.partition)
    if not probe:
        yield Finding("ok", "probe", "not asked for (--no-probe): what nodes see of this folder is not known")
    elif "%" in str(folder):
        yield Finding("warning", "probe", "not sent, since SLURM would misread the folder's %")
    else:
        yield from check_node(folder, target, wait_s)


def choose_target(site: Site, settings: dict[str, str], partition: str) -> Target:
    """Where the probe goes and what it asks for: one GPU where the partition has any."""
    standard = next((one.name for one in site.partitions if one.default), "")
    name = partition or settings.get("gpu-partition") or settings.get("partition") or standard
    return Target(name, any(one.name == name and one.gpus for one in site.partitions), settings)
