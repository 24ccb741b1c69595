"""The command line: check a study or a cluster, show what a study takes and how far it is. It needs no torch."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from cem import CemError, __version__
from cem.config import Run, load_study
from cem.planning.cluster import find_cluster_jobs
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start
from cem.report.verdicts import read_verdicts
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
    check_before_start(planned)
    runs, warmups, jobs = len(planned.runs), len(planned.warmups), planned.jobs().total()
    typer.echo(f"study ok: {runs} runs, {warmups} warm-ups, {jobs} jobs")


@app.command()
def plan(file: File = FILE, results: Results = RESULTS) -> None:
    """Show the runs of a study and the jobs they take from nothing."""
    planned = Plan(load_study(file), results)
    titles = ("run", "surrogate", "formula", "weight", "noise", "defences", "seed")
    typer.echo(_table([titles, *map(_row, planned.runs.values())]))
    jobs = planned.jobs()
    typer.echo("\n" + _table([("rule", "jobs"), *((rule, str(count)) for rule, count in jobs.items() if count)]))
    typer.echo("")
    for name in [name for name in planned.runs if name not in planned.asked]:
        typer.echo(f"added: {name} (undefended reference: an attack must invert it for its numbers to count)")
    typer.echo(f"{len(planned.runs)} runs, {jobs.total()} jobs")


@app.command()
def status(file: File = FILE, results: Results = RESULTS) -> None:
    """Show which stages of each run are done, and what lies in the results without being part of the study.

    Exit code 1 when the results say that an attack with training failed.
    """
    planned = Plan(load_study(file), results)
    attacks = [attack.id for attack in planned.study.attacks]
    done = {name: _stages(planned, run, attacks) for name, run in planned.runs.items()}
    stages = ("model", "activations", "leakage", *attacks)
    words = {True: "done", False: "-", None: ""}
    marks = [(name, *(words[ready] for ready in row)) for name, row in done.items()]
    columns = [[ready for ready in column if ready is not None] for column in zip(*done.values(), strict=True)]
    counts = [f"{sum(column)}/{len(column)}" for column in columns]
    typer.echo(_table([("run", *stages), *marks, ("all", *counts)]))
    for orphan in planned.orphans():
        now = planned.renamed(orphan)
        why = f"made by an earlier version, which is now called {now}" if now else "not in this study"
        typer.echo(f"orphan: {orphan} ({why}, so in no table; may be deleted)")
    for state in sorted(planned.root.glob(".state/*/")):
        typer.echo(f"unfinished training or attack: {state} (running now, or resumed by the next run)")
    _show_cluster_jobs(planned)
    failed = _show_verdicts(planned)
    typer.echo(f"report: {planned.report}" if planned.report.is_file() else "report: not made yet")
    sys.exit(1 if failed else 0)


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
    gres: Annotated[str | None, typer.Option(help="how GPUs are asked for: gpu:a100:{gpus}")] = None,
    setup: Annotated[str | None, typer.Option(help="shell lines run on the node first: module load …")] = None,
    python: Annotated[str | None, typer.Option(help="command that starts Python on the node")] = None,
    to: Annotated[Path | None, typer.Option(help="folder of profiles; by default Snakemake's own")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace a profile that was edited by hand")] = False,
) -> None:
    """Copy a profile to where `snakemake --profile NAME` finds it, with your site's settings in it.

    Settings that are not named are kept from the one that is there; an empty one ('') is taken out.
    """
    values = (account, partition, gpu_partition, qos, constraint, gres, setup, python)
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


def _show_verdicts(planned: Plan) -> bool:
    """Say which attacks do not count by the results as they are now; whether one that is trained failed."""
    failed = False
    for verdict in read_verdicts(planned):
        word = "still improving" if verdict.bound else "attack failed"
        typer.echo(f"{word}: {verdict.attack} on {verdict.run}: {verdict.why}")
        failed |= not verdict.bound and verdict.attack in planned.learned
    return failed


def _show_cluster_jobs(planned: Plan) -> None:
    submissions, unreadable = Books(BOOKS).read()
    jobs = find_cluster_jobs(planned, (job for submission in submissions for job in submission.members))
    for job in jobs.failed:
        typer.echo(f"failed on the cluster: {job.rule} of {job.run} on {job.node}, attempt {job.attempt}: {job.cause}")
        typer.echo(f"  log: {job.log}")
    if jobs.open:
        typer.echo(f"open on the cluster: {jobs.open} (waiting, running, or left by a head that ended: run it again)")
    for text in unreadable:
        typer.echo(f"record not read: {text}")


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


def _stages(planned: Plan, run: Run, attacks: list[str]) -> list[bool | None]:
    """Whether each stage is done; None for an attack that this run is not scored by."""
    folder, own = planned.run(run), {attack.id for attack in planned.attacks(run)}
    done: list[bool | None] = [
        path.is_file() for path in (folder / "model.safetensors", folder / "activations.h5", planned.leakage(run))
    ]
    scores = [(planned.attack(run, attack) / "metrics.parquet").is_file() for attack in attacks]
    return done + [ready if attack in own else None for attack, ready in zip(attacks, scores, strict=True)]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, aligned, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit code 2, and a message without a traceback, for what the user can put right."""
    try:
        app(arguments, prog_name="cem")
    except (CemError, SiteError) as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
