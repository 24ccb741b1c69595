"""What can be known to be wrong before any job starts."""

import os
from pathlib import Path

from cem.data.check import check_files
from cem.plan import Plan
from cem.store import StoreError


def check_before_start(plan: Plan) -> None:
    """Raise DataError or StoreError when a raw file is absent or damaged, or the results cannot be written.

    Raw files are not needed any more once the data set is prepared.
    """
    for dataset in plan.datasets.values():
        if not plan.data(dataset).exists():
            check_files(dataset)
    nearest = next(folder for folder in [plan.folder, *plan.folder.parents, Path.cwd()] if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(
            f"{nearest}: results go here, but this user may not write to it. Change its permissions, or work elsewhere "
            "with snakemake --directory."
        )
