"""Commands about a study: check it, what it takes, how far it is, its report."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cem.cli.app import FILE, FOUND, OK, RESULTS, AsJson, File, Results, end, say, say_json
from cem.config import load_study
from cem.planning.cluster import find_cluster_jobs
from cem.planning.differences import Absent, settings_that_differ, value_text
from cem.planning.forecast import Forecast
from cem.planning.plan import Plan
from cem.planning.preflight import check_before_start
from cem.planning.progress import Status
from cem.planning.text import aligned
from snakemake_executor_plugin_submitit.books.records import FOLDER, Books

BOOKS = Path(".snakemake") / FOLDER  # where the executor keeps its records
CLEAR = "\x1b[2J\x1b[H"  # a terminal's screen, and back to its first line


def validate(file: File = FILE, results: Results = RESULTS) -> None:
    """Check a study and the files it needs, before any job starts."""
    planned = Plan(load_study(file), results)
    for note in check_before_start(planned):
        typer.echo(note)
    runs, warmups, jobs = len(planned.runs), len(planned.warmups), planned.jobs().total()
    typer.echo(f"study ok: {runs} runs, {warmups} warm-ups, {jobs} jobs")


def plan(
    file: File = FILE,
    results: Results = RESULTS,
    images: Annotated[int | None, typer.Option(min=1, help="private images, where the data are not here yet")] = None,
    images_per_second: Annotated[
        float | None, typer.Option(min=1e-3, help="of a training step without a surrogate on your GPU")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the runs of a study by what differs among them, their jobs, and about how much disk and time of one GPU."""
    planned = Plan(load_study(file), results)
    differing, jobs = settings_that_differ(list(planned.runs.values())), planned.jobs()
    forecast = Forecast(planned, images, images_per_second)
    added = [name for name in planned.runs if name not in planned.asked]
    if as_json:
        rows = [
            {"run": name, "added": name in added}
            | {setting: values[place] for setting, values in differing.items() if values[place] is not Absent}
            for place, name in enumerate(planned.runs)
        ]
        say_json({"study": planned.study.name, "runs": rows, "jobs": dict(jobs), "forecast": forecast.as_json()})
        return
    texts = [[value_text(value) for value in values] for values in differing.values()]
    rows_of_text = zip(planned.runs, *texts, strict=True)
    typer.echo(aligned([("run", *differing), *rows_of_text]))
    typer.echo("\n" + aligned([("rule", "jobs"), *((rule, str(count)) for rule, count in jobs.items() if count)]))
    typer.echo("")
    for name in added:
        typer.echo(f"added: {name} (undefended reference: an attack must invert it for its numbers to count)")
    typer.echo("\n".join(forecast.lines()))
    typer.echo(f"{len(planned.runs)} runs, {jobs.total()} jobs")


def status(
    file: File = FILE,
    results: Results = RESULTS,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="show it again and again, until every run has ended")] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks of --watch")] = 10.0,
) -> None:
    """Show how far each run is, and what lies in the results without being part of the study.

    A run is waiting, running (epoch, time left), failed (cause, log), done, or done with other settings than now.
    Exit code 0: nothing failed; 1: a run failed, or the results say that an attack with training did; 2: the study or a
    file is not as it should be. Ctrl-C ends --watch, with the code of what it showed last. With --json, --watch prints
    one object a line.
    """
    planned = Plan(load_study(file), results)
    found = _look(planned, file)
    try:
        while watch and not found.ended:
            if as_json:
                typer.echo(json.dumps(found.as_json()))
            else:
                say((CLEAR if sys.stdout.isatty() else "") + found.text() + f"\n{time.strftime('%H:%M:%S')}\n")
            time.sleep(every)
            found = _look(planned, file)
    except KeyboardInterrupt:
        end(FOUND if found.failed else OK)
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=None if watch else 2))
    else:
        say(found.text())
    end(FOUND if found.failed else OK)


def _look(planned: Plan, file: Path) -> Status:
    submissions, unread = Books(BOOKS).read()
    jobs = find_cluster_jobs(planned, (job for submission in submissions for job in submission.members))
    return Status.of(planned, file, jobs, unread)


def report(file: File = FILE, results: Results = RESULTS) -> None:
    """Make results.csv and the report from what is finished now, and name the runs that are not.

    The workflow makes the whole of it at its end; this can be called at any time. Exit code 0: every run is in it; 1:
    some are missing; 2: a file is damaged.
    """
    from cem.report.finished import describe, report_finished  # pandas and figures: other commands do without

    planned = Plan(load_study(file), results)
    missing = report_finished(planned, file=file)
    say(describe(planned, missing))
    end(FOUND if missing else OK)
