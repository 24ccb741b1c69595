"""The program: what all commands share. Options, exit codes, colours, JSON."""

import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from cem import CemError, __version__
from snakemake_executor_plugin_submitit.site.program import SiteError

# docs/cli.md holds the same table.
OK, FOUND, REFUSED, CRASHED, INTERRUPTED = 0, 1, 2, 70, 130
EXITS = {
    OK: "done, and nothing is wrong",
    FOUND: "done, and something is wrong: a run, or an attack that is trained, failed (status), runs are missing "
    "(report), the cluster lacks something (doctor); or the question was answered with no (clean)",
    REFUSED: "not done: an option, a study or a file is not as it should be; the message is on standard error",
    CRASHED: "cem itself is at fault: its traceback is on standard error, and is what a report of the fault needs",
    INTERRUPTED: "stopped by Ctrl-C (but for status --watch, whose code is that of what it showed last)",
}
_COLOURS = {
    "done": "green", "ok": "green", "yes": "green", "running": "blue", "warning": "yellow", "failed": "red",
    "problem": "red",
}  # fmt: skip
_WORD = re.compile(rf"(?<!\S)(?:{'|'.join(_COLOURS)})(?=[:,]?(?:\s|$))")

File = Annotated[Path, typer.Argument(metavar="FILE", help="the study, in YAML", show_default=True)]
Results = Annotated[Path, typer.Option(help="folder of the results")]
AsJson = Annotated[bool, typer.Option("--json", help="the same as JSON, for programs")]
FILE, RESULTS = Path("config/config.yaml"), Path("results")

# Without rich, which would read brackets in the user's words as markup.
app = typer.Typer(
    help="How much of a private image can be rebuilt from what a split model sends, and what does stopping that cost?",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


def say(text: str) -> None:
    """Print a text; on a terminal with the words of a state in colours, unless NO_COLOR is set (no-color.org)."""
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb":
        text = _WORD.sub(lambda found: typer.style(found[0], fg=_COLOURS[found[0]]), text)
    typer.echo(text)


def say_json(value: Any) -> None:
    """Print JSON. Infinities and NaN, which JSON lacks, must be None before."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def end(code: int) -> NoReturn:
    """End with one of EXITS."""
    sys.exit(code)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; exit code 2, and a message without a traceback, for what the user can put right.

    Python's own code for all else that goes wrong would be 1, which is that of a command that found something.
    """
    try:
        app(arguments, prog_name="cem")
    except (CemError, SiteError) as error:
        typer.echo(str(error), err=True)
        sys.exit(REFUSED)
    except Exception:
        traceback.print_exc()
        typer.echo(
            f"The fault above is one of cem {__version__}, not of a study. Report it with these lines.", err=True
        )
        sys.exit(CRASHED)
