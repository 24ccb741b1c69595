"""Commands about the machine and its cluster: doctor, profiles."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cem import CemError
from cem.cli.app import FOUND, OK, AsJson, end, say, say_json
from snakemake_executor_plugin_submitit.site import profile as profiles
from snakemake_executor_plugin_submitit.site.doctor import Finding, examine
from snakemake_executor_plugin_submitit.site.program import Program

CEM = Program("cem", setup="make .venv/ready")
profile = typer.Typer(help="Install and show profiles of Snakemake.", rich_markup_mode=None, no_args_is_help=True)


def doctor(
    partition: Annotated[str, typer.Option(help="where the probe goes; by default what the profile says")] = "",
    profile: Annotated[str, typer.Option(help="whose site settings the probe has")] = "slurm",
    probe: Annotated[bool, typer.Option(help="submit one tiny job and see what it finds on its node")] = True,
    wait: Annotated[float, typer.Option(min=1, help="seconds that the probe may be pending")] = 120.0,
    as_json: AsJson = False,
) -> None:
    """Check this host, this folder and the cluster. Exit code 1 when something will not work."""
    findings = []
    for finding in examine(CEM, partition, profile, probe, wait, _check_hdf5):
        if not as_json:
            say(str(finding))
        findings.append(finding)
    levels = [finding.level for finding in findings]
    counts = {level: levels.count(level) for level in ("problem", "warning")}
    if as_json:
        say_json([asdict(finding) for finding in findings])
    else:
        typer.echo(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items()))
    end(FOUND if counts["problem"] else OK)


@profile.command()
def install(
    name: Annotated[str, typer.Argument(help="slurm or local")],
    account: Annotated[str | None, typer.Option(help="account that jobs are charged to")] = None,
    partition: Annotated[str | None, typer.Option(help="partition of jobs without a GPU")] = None,
    gpu_partition: Annotated[str | None, typer.Option(help="partition of jobs with a GPU")] = None,
    qos: Annotated[str | None, typer.Option(help="quality of service")] = None,
    constraint: Annotated[str | None, typer.Option(help="features that nodes must have")] = None,
    wckey: Annotated[
        str | None, typer.Option(help="workload characterisation key, where the site asks for one")
    ] = None,
    gres: Annotated[str | None, typer.Option(help="how GPUs are asked for: gpu:a100:{gpus}")] = None,
    no_gpu: Annotated[bool | None, typer.Option("--no-gpu/--gpu", help="the site has no GPUs: jobs go without")] = None,
    setup: Annotated[str | None, typer.Option(help="shell lines run on the node first: module load …")] = None,
    python: Annotated[str | None, typer.Option(help="command that starts Python on the node")] = None,
    to: Annotated[Path | None, typer.Option(help="folder of profiles; by default Snakemake's own")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a profile that was edited by hand")] = False,
) -> None:
    """Copy a profile to where `snakemake --profile NAME` finds it, with your site's settings in it.

    Settings that are not named are kept from the one that is there; an empty one ('') is taken out.
    """
    without = None if no_gpu is None else "true" if no_gpu else ""
    values = (account, partition, gpu_partition, qos, constraint, wckey, gres, without, setup, python)
    given = {key: value for key, value in zip(profiles.SITE, values, strict=True) if value is not None}
    path, done = profiles.install(name, given, CEM, to, force)
    typer.echo(f"{path} {done}")
    if to is None and Path(name).exists():
        typer.echo(f"warning: {name} in this folder hides it from snakemake --profile {name} here", err=True)


@profile.command()
def show(
    name: Annotated[str, typer.Argument(help="name or path of a profile")] = "slurm", as_json: AsJson = False
) -> None:
    """Show which file `snakemake --profile NAME` reads, and its settings of the site."""
    path = profiles.find(name)
    if path is None:
        raise profiles.ProfileError(
            f"{name}: expected a profile in {profiles.user_folder()} or here, found none. cem profile install {name}"
        )
    if as_json:
        state = profiles.describe(name, path, CEM).removeprefix("state: ")
        say_json({"file": str(path.absolute()), "settings": profiles.site_settings(path), "state": state})
        return
    typer.echo(f"file: {path.absolute()}")
    for key, value in profiles.site_settings(path).items():
        typer.echo(f"{key}: {value}")
    typer.echo(profiles.describe(name, path, CEM))


def _check_hdf5(scratch: Path) -> Iterator[Finding]:
    """Whether HDF5 files, which every stage needs, can be written and read in a folder."""
    from cem.storage import hdf5  # h5py takes a while

    try:
        with hdf5.write_file(scratch / "probe.h5", "probe") as file:
            file["numbers"] = [1, 2, 3]
        with hdf5.Reader(scratch / "probe.h5", kind="probe"):
            pass
    except (OSError, CemError) as error:
        text = f"expected to write and read an HDF5 file, cannot: {error}"
        yield Finding("problem", "hdf5", text, "Free the disk.")
        return
    yield Finding("ok", "hdf5", "written and read, without HDF5's own locks, which the pipeline leaves off")
