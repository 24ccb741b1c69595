"""Where the workflow is, and the command that runs a study with it from the working folder."""

import shlex
from pathlib import Path

from cem.config import ConfigError

WORKFLOW = Path(__file__).resolve().parents[2] / "Snakefile"  # of a checkout
OF_CEM = Path("workflow/rules/common.smk")  # beside it, in any checkout
PROFILE = Path("profiles/local")
RESULTS = Path("results")  # below the working folder; the workflow writes nowhere else


def find_workflow() -> Path:
    """The Snakefile of the checkout that this package is in, else of the working folder, where that is one of cem.

    Raises ConfigError where neither is.
    """
    here = Path("Snakefile")
    if WORKFLOW.is_file():
        return WORKFLOW
    # A project may have a workflow of its own, which is not the one to run.
    if not (here.is_file() and OF_CEM.is_file()):
        raise ConfigError(
            f"expected the workflow of cem here (Snakefile and {OF_CEM}), found none. Run this in a checkout of cem"
        )
    return here


def run_command(study: Path, target: Path | None = None, folder: Path = Path()) -> str:
    """What a shell in a folder is given to run a study, or to make one file of it: in a checkout with its profile, in
    another folder with its Snakefile."""
    words = ["snakemake", "--profile", str(PROFILE)]
    if not ((folder / OF_CEM).is_file() and (folder / PROFILE).is_dir()):
        snakefile = WORKFLOW if WORKFLOW.is_file() else Path("CHECKOUT/Snakefile")
        words = ["snakemake", "--snakefile", str(snakefile), "--cores", "all"]
    return shlex.join([*words, "--configfile", str(study), *([] if target is None else ["--", str(target)])])


def report_command(study: Path, results: Path) -> str:
    """What a shell is given to make the report of a study of what is finished."""
    elsewhere = "" if results == RESULTS else f" --results {shlex.quote(str(results))}"
    return f"cem report {shlex.quote(str(study))}{elsewhere}"
