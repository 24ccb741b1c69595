"""The command line: check a study or a cluster, show what a study takes and how far it is. It needs no torch."""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cem import CemError, __version__
from cem.config import Run, load_study
from cem.data import catalog
from cem.planning.audit import audit
from cem.planning.cluster import find_cluster_jobs
from cem.planning.forecast import Forecast
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start
from cem.planning.progress import Status, aligned
from cem.storage.export import export as export_weights
from cem.storage.export import find_run
from snakemake_executor_plugin_submitit.books.records import FOLDER, Books
from snakemake_executor_plugin_submitit.site import profile as profiles
from snakemake_executor_plugin_submitit.site.doctor import Finding, examine
from snakemake_executor_plugin_submitit.site.program import Program, SiteError

File = Annotated[Path, typer.Argument(metavar="FILE", help="the study, in YAML", show_default=True)]
Results = Annotated[Path, typer.Option(help="folder of the results")]
FILE, RESULTS = Path("config/config.yaml"), Path("results")
CEM = Program("cem", setup="make .venv/ready")
BOOKS = Path(".snakemake") / FOLDER  # where the executor keeps its records

# Without rich, which would read brackets in the user's words as markup.
app = typer.Typer(
    help="How much of a private image can be rebuilt from what a split model sends, and what does stopping that cost?",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
profile = typer.Typer(help="Install and show profiles of Snakemake.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(profile, name="profile")
attack = typer.Typer(help="What a finished attack fitted.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(attack, name="attack")
app.command()(audit)


def _show_version(asked: bool) -> bool:
    if asked:
        typer.echo(f"cem {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """What every command takes; its help is the program's own."""


@app.command()
def validate(file: File = FILE, results: Results = RESULTS) -> None:
    """Check a study and the files it needs, before any job starts."""
    planned = Plan(load_study(file), results)
    for note in check_before_start(planned):
        typer.echo(note)
    runs, warmups, jobs = len(planned.runs), len(planned.warmups), planned.jobs().total()
    typer.echo(f"study ok: {runs} runs, {warmups} warm-ups, {jobs} jobs")


@app.command()
def plan(
    file: File = FILE,
    results: Results = RESULTS,
    images: Annotated[int | None, typer.Option(min=1, help="private images, where the data are not here yet")] = None,
    images_per_second: Annotated[
        float | None, typer.Option(min=1e-3, help="of a training step without a surrogate on your GPU")
    ] = None,
) -> None:
    """Show the runs of a study, the jobs they take from nothing, and about how much disk and time of one GPU."""
    planned = Plan(load_study(file), results)
    titles = ("run", "surrogate", "formula", "weight", "noise", "defences", "seed")
    typer.echo(aligned([titles, *map(_row, planned.runs.values())]))
    jobs = planned.jobs()
    typer.echo("\n" + aligned([("rule", "jobs"), *((rule, str(count)) for rule, count in jobs.items() if count)]))
    typer.echo("")
    for name in [name for name in planned.runs if name not in planned.asked]:
        typer.echo(f"added: {name} (undefended reference: an attack must invert it for its numbers to count)")
    typer.echo("\n".join(Forecast(planned, images, images_per_second).lines()))
    typer.echo(f"{len(planned.runs)} runs, {jobs.total()} jobs")


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="a source or a data set; absent: all")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same as JSON, for programs")] = False,
) -> None:
    """Show the sources of images and the known data sets; of one, what it needs, where it looks, how to get it.

    Paths are below the working directory, with each set's usual `root`. Exit code 2: there is none of that name.
    """
    if name is not None:
        one = catalog.find(name)
        typer.echo(json.dumps(one.as_json(), indent=2, ensure_ascii=False) if as_json else one.text())
        return
    groups = {"sources": catalog.sources(), "sets": list(catalog.SETS)}
    if as_json:
        listed = {group: [one.as_json() for one in known] for group, known in groups.items()}
        typer.echo(json.dumps(listed, indent=2, ensure_ascii=False))
        return
    typer.echo(aligned([("source", "what", ""), *((*row[:2], "") for row in catalog.rows(groups["sources"]))]))
    typer.echo("\n" + aligned([("set", "what", "found here"), *catalog.rows(groups["sets"])]))


@app.command()
def status(
    file: File = FILE,
    results: Results = RESULTS,
    as_json: Annotated[bool, typer.Option("--json", help="the same as one JSON object, for programs")] = False,
) -> None:
    """Show how far each run is, and what lies in the results without being part of the study.

    A run is waiting, running (epoch, time left), failed (cause, log), done, or done with other settings than now.
    Exit code 0: nothing failed; 1: a run failed, or the results say that an attack with training did; 2: the study or a
    file is not as it should be.
    """
    planned = Plan(load_study(file), results)
    submissions, unread = Books(BOOKS).read()
    jobs = find_cluster_jobs(planned, (job for submission in submissions for job in submission.members))
    found = Status.of(planned, jobs, unread)
    typer.echo(json.dumps(found.as_json(), indent=2) if as_json else found.text())
    sys.exit(1 if found.failed else 0)


@app.command()
def report(file: File = FILE, results: Results = RESULTS) -> None:
    """Make results.csv and the report from what is finished now, and name the runs that are not.

    The workflow makes the whole of it at its end; this can be called at any time. Exit code 0: every run is in it; 1:
    some are missing; 2: a file is damaged.
    """
    from cem.report.finished import describe, report_finished  # pandas and figures: other commands do without

    planned = Plan(load_study(file), results)
    missing = report_finished(planned)
    typer.echo(describe(planned, missing))
    sys.exit(1 if missing else 0)


@app.command()
def models(
    arch: Annotated[str, typer.Argument(metavar="[ARCH]", help="vgg11, torchvision:resnet18, …; absent: all")] = "",
    side: Annotated[int, typer.Option(min=1, help="images are side × side pixels")] = 32,
    channels: Annotated[int, typer.Option(min=1, help="1: grey; 3: colour")] = 3,
    width: Annotated[float, typer.Option(help="setting `width`")] = 1.0,
    bottleneck: Annotated[str, typer.Option(help="setting `bottleneck`; none: without one")] = "noRELU_C8S1",
    as_json: Annotated[bool, typer.Option("--json", help="the same as a JSON list, for programs")] = False,
) -> None:
    """Show, for every cut of an architecture, the shape of z and what the client holds and computes.

    MACs: multiplications with addition for one image, of convolutions and matrix products.
    """
    from cem.models.catalogue import catalogue  # torch: other commands do without

    settings = {"width": width, "bottleneck": None if bottleneck == "none" else bottleneck}
    rows = catalogue(arch, settings, (channels, side, side))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    typer.echo(aligned([("arch", "cut", "z", "client parameters", "client MACs"), *(row.words() for row in rows)]))


@app.command()
def doctor(
    partition: Annotated[str, typer.Option(help="where the probe goes; by default what the profile says")] = "",
    profile: Annotated[str, typer.Option(help="whose site settings the probe has")] = "slurm",
    probe: Annotated[bool, typer.Option(help="submit one tiny job and see what it finds on its node")] = True,
    wait: Annotated[float, typer.Option(min=1, help="seconds that the probe may be pending")] = 120.0,
) -> None:
    """Check this host, this folder and the cluster. Exit code 1 when something will not work."""
    levels = []
    for finding in examine(CEM, partition, profile, probe, wait, _check_hdf5):
        typer.echo(str(finding))
        levels.append(finding.level)
    counts = {level: levels.count(level) for level in ("problem", "warning")}
    typer.echo(", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items()))
    sys.exit(1 if counts["problem"] else 0)


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
def show(name: Annotated[str, typer.Argument(help="name or path of a profile")] = "slurm") -> None:
    """Show which file `snakemake --profile NAME` reads, and its settings of the site."""
    path = profiles.find(name)
    if path is None:
        raise profiles.ProfileError(
            f"{name}: expected a profile in {profiles.user_folder()} or here, found none. cem profile install {name}"
        )
    typer.echo(f"file: {path.absolute()}")
    for key, value in profiles.site_settings(path).items():
        typer.echo(f"{key}: {value}")
    typer.echo(profiles.describe(name, path, CEM))


@attack.command()
def export(
    run: Annotated[str, typer.Argument(metavar="RUN", help="folder of a run, or its id, as `cem plan` shows it")],
    name: Annotated[str, typer.Argument(metavar="ATTACK", help="name of a finished attack that fits networks")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file; absent: ATTACK.safetensors")] = None,
    results: Results = RESULTS,
) -> None:
    """Write the networks that an attack fitted to a file that others can start from (setting `weights`)."""
    target = output or Path(f"{name}.safetensors")
    header, digest = export_weights(find_run(run, results), name, target)
    typer.echo(f"{target}: {header.text}\nsha256: {digest}")


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


def _row(run: Run) -> tuple[str, ...]:
    surrogate = run.surrogate
    defenses = "+".join(defense.label for defense in run.defenses) or "-"
    weight = f"{surrogate.weight:g}"
    return (run.id, surrogate.member, surrogate.formula or "-", weight, f"{run.noise_std:g}", defenses, str(run.seed))


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit code 2, and a message without a traceback, for what the user can put right."""
    try:
        app(arguments, prog_name="cem")
    except (CemError, SiteError) as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
