"""Where a page comes from: which code, which machines, when, and the command that makes it again."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import cem
from cem.planning.plan import Plan
from cem.planning.status import RunStatus
from cem.planning.steps import steps_of
from cem.planning.workflow import RESULTS, run_command
from cem.report.inputs import read_attack, read_training
from cem.storage.job_records import JobRecord

STUDY = Path("STUDY.yaml")  # as a page calls the study that it shows
CODE = ("workflow", "snakemake_executor_plugin_submitit", "Snakefile")  # beside the package, in a checkout


def command() -> str:
    """What makes a study, from the working folder."""
    return run_command(STUDY)


def provenance(plan: Plan) -> dict[str, str]:
    """Facts in words: of the code that wrote the page, and of the jobs that trained its runs and attacked them."""
    facts = {"code of this page": code_version(Path(cem.__file__).parent), "to make it again": command()}
    runs = plan.runs.values()
    facts |= _facts_of_jobs("trainings started", "trained on", [read_training(plan, run) for run in runs])
    attacks = [read_attack(plan, run, attack.id) for run in runs for attack in plan.attacks(run)]
    facts |= _facts_of_jobs("attacks started", "attacked on", attacks)
    if attacks:
        facts["version of torch, attacks"] = ", ".join(dict.fromkeys(record.torch for record in attacks))
        facts["numerics, attacks"] = ", ".join(dict.fromkeys(str(record.numerics[-1]) for record in attacks))
    return facts


def _facts_of_jobs(when: str, where: str, records: Sequence[JobRecord]) -> dict[str, str]:
    """When their attempts started, first and last, and on which machines; nothing where none is recorded."""
    attempts = [attempt for record in records for attempt in record.attempts]
    if not attempts:
        return {}
    started = [attempt.started for attempt in attempts]
    machines = dict.fromkeys(f"{attempt.node} ({attempt.device})" for attempt in attempts)
    return {when: " to ".join(dict.fromkeys((min(started), max(started)))), where: ", ".join(machines)}


def code_version(folder: Path) -> str:
    """The version, and the commit where the package is part of a checkout, with whether that has changes since.

    All that is tracked there counts, and new files where code is: a study of one's own beside it is none.
    """
    version = f"cem {cem.__version__}"
    # A package that is installed in some other project's folder is not of that project's commit.
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return f"{version}; commit not known: not a git checkout, or git is not installed"
    checkout, code = folder.parent, (folder.name, *CODE)
    changed = _git(checkout, "status", "--porcelain", "--untracked-files=no", ".")
    changed = changed or _git(checkout, "ls-files", "--others", "--exclude-standard", "--", *code)
    return f"{version}, commit {_git(folder, 'rev-parse', 'HEAD')}" + (
        ", with changes not committed" if changed else ""
    )


def _git(folder: Path, *words: str) -> str | None:
    """What git says; None where it has nothing to say of this folder."""
    try:
        found = subprocess.run(  # noqa: S603
            ["git", "-C", str(folder), *words],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def remedies(plan: Plan, missing: Sequence[RunStatus], file: Path | None = None) -> dict[str, str]:
    """Run → the command that makes the first thing that it lacks; under "" what makes all. plan: of the whole study.

    file: the study's, where it is known. No command, empty texts, where no workflow writes to these results.
    """
    found = {"": _command(plan, file)}
    for one in missing:
        lacking = [
            path for step in steps_of(plan, one.run, plan.runs[one.run]) for path in step.outputs if not path.is_file()
        ]
        found[one.run] = _command(plan, file, lacking[0] if lacking else None)
    return found


def _command(plan: Plan, file: Path | None, target: Path | None = None) -> str:
    """From the working folder, or from that whose `results` these are: the workflow writes nowhere else."""
    study, results = file or STUDY, plan.root.absolute()
    target = None if target is None else RESULTS / target.relative_to(plan.root)
    if results.resolve() == RESULTS.resolve():
        return run_command(study, target)
    if results.name != RESULTS.name:
        return ""
    study = study if file is None else study.absolute()
    return f"cd {shlex.quote(str(results.parent))} && {run_command(study, target, results.parent)}"
