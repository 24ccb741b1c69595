"""Commands about what is in the results: one run, several runs or studies, what an attack fitted, what is left over."""

from pathlib import Path
from typing import Annotated

import typer

from cem.cli.app import FILE, FOUND, INTERRUPTED, OK, RESULTS, AsJson, Results, end, say, say_json
from cem.planning.leftover import find_leftover, remove
from cem.planning.text import aligned
from cem.storage.export import export as export_weights
from cem.storage.export import find_run, run_folders

attack = typer.Typer(help="What a finished attack fitted.", rich_markup_mode=None, no_args_is_help=True)


def _complete_run(incomplete: str) -> list[str]:
    return [name for name in run_folders(RESULTS).values() if name.startswith(incomplete)]


RunId = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="folder of a run, its id, as `cem plan` shows it, or a part that only one id has",
        autocompletion=_complete_run,
    ),
]


def show(run: RunId, results: Results = RESULTS, as_json: AsJson = False) -> None:
    """Show a run: its settings, training, scores of attacks, curves as text, and where its pictures and logs are."""
    from cem.report.show import show_run  # reads tables of scores: other commands do without

    found = show_run(find_run(run, results))
    if as_json:
        say_json(found.as_json())
    else:
        say(found.text())


def compare(
    what: Annotated[
        list[str], typer.Argument(metavar="STUDY… | RUN RUN…", help="files or names of studies; or ids of runs")
    ],
    results: Results = RESULTS,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="the page; absent: in the results")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare studies, or runs: the settings and the metrics that differ, here and as one page in the results.

    Each study needs its runs.csv, which the workflow makes at its end, and `cem report FILE` at any time.
    """
    from cem.report.several import compare_several  # pandas and figures

    found = compare_several(what, results)
    page = found.write(output)
    if as_json:
        say_json(found.as_json() | {"page": str(page)})
        return
    for table in found.tables:
        typer.echo("\n".join([table.name, aligned([table.header, *table.rows]), *table.notes, ""]))
    typer.echo("\n".join([*found.notes, f"page: {page}"]))


def clean(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE…", help="the studies, in YAML")] = None,
    results: Results = RESULTS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show what would be deleted")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="do not ask")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete what studies no longer need: runs, warm-ups and attacks that none plans, states nothing goes on from.

    Shows all of it first, with its size, and asks. Only folders below the results are deleted, and of runs only those
    of the named studies. What other studies beside the files plan, or name as a file to start from, is kept. With
    --json it deletes only where --yes is given, too. Exit code 1: the question was answered with no.
    """
    found = find_leftover(files or [FILE], results)
    if as_json:
        say_json(found.as_json())
    else:
        typer.echo(found.text())
    if not found.folders or dry_run or (as_json and not yes):
        return
    if not yes and (refused := _refusal(f"Delete these {len(found.folders)} folders?")):
        typer.echo("nothing was deleted")
        end(refused)
    freed = remove(found)
    typer.echo(f"deleted {len(found.folders)} folders, {freed}", err=as_json)
    end(OK)


def _refusal(question: str) -> int:
    """The exit code of an answer that is not yes; 0 of yes."""
    try:
        return OK if typer.confirm(question) else FOUND
    except typer.Abort as stopped:  # Ctrl-C, or an input that is at its end: nobody is there to answer
        typer.echo()
        return INTERRUPTED if isinstance(stopped.__context__, KeyboardInterrupt) else FOUND


@attack.command()
def export(
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="ATTACK", help="name of a finished attack that fits networks")],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="file; absent: ATTACK.safetensors")] = None,
    results: Results = RESULTS,
) -> None:
    """Write the networks that an attack fitted to a file that others can start from (setting `weights`)."""
    target = output or Path(f"{name}.safetensors")
    header, digest = export_weights(find_run(run, results), name, target)
    typer.echo(f"{target}: {header.text}\nsha256: {digest}")
