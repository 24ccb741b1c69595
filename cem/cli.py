"""The command line: check a study, show what it asks for, and how far it is. None of it needs torch."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cem import CemError
from cem.config import Run, load_study
from cem.plan import Plan
from cem.preflight import check_before_start

File = Annotated[Path, typer.Argument(metavar="FILE", help="the study, in YAML", show_default=True)]
Results = Annotated[Path, typer.Option(help="folder of the results")]
FILE, RESULTS = Path("config/config.yaml"), Path("results")

# Without rich, which would read brackets in the user's words as markup.
app = typer.Typer(
    help="How much of a private image can be rebuilt from what a split model sends, and what does stopping that cost?",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)


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
    typer.echo(f"\n{len(planned.runs)} runs, {jobs.total()} jobs")


@app.command()
def status(file: File = FILE, results: Results = RESULTS) -> None:
    """Show which stages of each run are done, and what lies in the results without being part of the study."""
    planned = Plan(load_study(file), results)
    attacks = [attack.id for attack in planned.study.attacks]
    done = {name: _stages(planned, run, attacks) for name, run in planned.runs.items()}
    stages = ("model", "activations", "leakage", *attacks)
    marks = [(name, *("done" if ready else "-" for ready in row)) for name, row in done.items()]
    counts = [f"{sum(column)}/{len(done)}" for column in zip(*done.values(), strict=True)]
    typer.echo(_table([("run", *stages), *marks, ("all", *counts)]))
    for orphan in planned.orphans():
        typer.echo(f"orphan: {orphan} (not in this study, so in no table; may be deleted)")
    for state in sorted(planned.root.glob(".state/*/")):
        typer.echo(f"unfinished training: {state} (running now, or resumed by the next run)")
    typer.echo(f"report: {planned.report}" if planned.report.is_file() else "report: not made yet")


def _row(run: Run) -> tuple[str, ...]:
    surrogate = run.surrogate
    defenses = "+".join(defense.label for defense in run.defenses) or "-"
    weight = f"{surrogate.weight:g}"
    return (run.id, surrogate.kind, surrogate.formula or "-", weight, f"{run.noise_std:g}", defenses, str(run.seed))


def _stages(planned: Plan, run: Run, attacks: list[str]) -> list[bool]:
    folder = planned.run(run)
    scores = [planned.attack(run, attack) / "metrics.parquet" for attack in attacks]
    files = [folder / "model.safetensors", folder / "activations.h5", planned.leakage(run), *scores]
    return [path.is_file() for path in files]


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Columns, aligned, two spaces apart."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit code 2, and a message without a traceback, for what the user can mend."""
    try:
        app(arguments, prog_name="cem")
    except CemError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
