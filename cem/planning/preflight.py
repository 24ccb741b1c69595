"""What can be known to be wrong before any job starts."""

import os
from pathlib import Path

from cem.config import load
from cem.planning.plan import Plan
from cem.storage.files import StoreError


def check_before_start(plan: Plan) -> None:
    """Raise DataError when a raw file is absent or damaged, SurrogateError when an attention module would be too large,
    StoreError when the results cannot be written.

    Once a data set is prepared, its raw files are not needed any more.
    """
    for run in plan.runs.values():
        if run.surrogate.checks_size:
            load("cem.surrogates.check:check_surrogate")(run)  # by name: torch takes seconds, and few studies need it
    for dataset in plan.datasets.values():
        if not plan.data(dataset).exists():
            load("cem.data.check:check_files")(dataset)
    nearest = next(folder for folder in [plan.folder, *plan.folder.parents, Path.cwd()] if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(
            f"{nearest}: results go here, but this user may not write to it. Change its permissions, or work elsewhere "
            "with snakemake --directory."
        )
