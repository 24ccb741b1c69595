"""What can be known to be wrong before any job starts."""

import os
from functools import cache
from pathlib import Path

from cem.config import load
from cem.data.check import Counted, check_attack, check_files, check_run, count_prepared
from cem.data.fingerprint import fingerprint, prepared_from
from cem.planning.plan import Plan
from cem.storage.files import StoreError


def check_before_start(plan: Plan) -> list[str]:
    """What the user should know of the data: what was left out of it, and what was decided.

    Raises DataError when a raw file is absent or damaged, or holds too few images for what is asked of it;
    SurrogateError when an attention module would be too large, ConfigError when a metric lacks a file or a package,
    StoreError when the results cannot be written.

    Once a data set is prepared, its raw files are not needed any more; once all attacks are scored, no metric is.
    """
    for run in plan.runs.values():
        if run.surrogate.checks_size:
            load("cem.surrogates.check:check_surrogate")(run)  # by name: torch takes seconds, and few studies need it
    notes = _check_images(plan)
    if not _all_scored(plan):
        for metric in plan.study.metrics:
            metric.check()
    nearest = next(folder for folder in [plan.folder, *plan.folder.parents, Path.cwd()] if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(
            f"{nearest}: results go here, but this user may not write to it. Change its permissions, or work elsewhere "
            "with snakemake --directory."
        )
    return notes


@cache
def fingerprint_of(plan: Plan, name: str) -> str:
    """What stands for the raw files of a data set, by its id; looked at once, as there may be 200,000 of them."""
    return fingerprint(plan.datasets[name], plan.data(plan.datasets[name]))


def _count(plan: Plan, name: str) -> Counted | None:
    """From the prepared data, unless that will be made anew."""
    dataset = plan.datasets[name]
    path = plan.data(dataset)
    if path.exists() and prepared_from(path) in (None, fingerprint_of(plan, name)):
        return count_prepared(path)
    return check_files(dataset)


def _check_images(plan: Plan) -> list[str]:
    """Whether every data set has what the runs on it, and the attacks on these, need; notes on them."""
    found = {name: _count(plan, name) for name in plan.datasets}
    for name, known in found.items():
        if known is not None:
            for attack in plan.study.attacks:
                check_attack(attack, plan.datasets[name], known)
    for run in plan.runs.values():
        known = found[run.dataset.id]
        if known is not None:
            check_run(run, known)
    return [
        f"{plan.datasets[name].name}: {note}"
        for name, known in found.items()
        for note in (() if known is None else known.notes)
    ]


def _all_scored(plan: Plan) -> bool:
    scores = (
        plan.attack(run, attack.id) / "metrics.parquet" for run in plan.runs.values() for attack in plan.attacks(run)
    )
    return all(path.exists() for path in scores)
