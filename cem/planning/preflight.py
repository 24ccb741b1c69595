"""What can be known to be wrong before any job starts."""

import os
from pathlib import Path

from cem.config import AttentionSurrogate, Run
from cem.data.check import check_files
from cem.planning.plan import Plan
from cem.storage.files import StoreError


def check_before_start(plan: Plan) -> None:
    """Raise DataError when a raw file is absent or damaged, SurrogateError when an attention module would be too large,
    StoreError when the results cannot be written.

    Once a data set is prepared, its raw files are not needed any more.
    """
    for run in plan.runs.values():
        if isinstance(run.surrogate, AttentionSurrogate) and run.surrogate.tokens == "flat":
            _check_size(run)
    for dataset in plan.datasets.values():
        if not plan.data(dataset).exists():
            check_files(dataset)
    nearest = next(folder for folder in [plan.folder, *plan.folder.parents, Path.cwd()] if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(
            f"{nearest}: results go here, but this user may not write to it. Change its permissions, or work elsewhere "
            "with snakemake --directory."
        )


def _check_size(run: Run) -> None:
    import torch  # takes seconds, and few studies have flat tokens

    from cem.models import make_split, smashed_shape
    from cem.surrogates import make_surrogate

    image = (run.dataset.channels, run.dataset.side, run.dataset.side)
    with torch.device("meta"):
        encoder, _ = make_split(run.model, image, num_classes=2)  # z has the same size for any number
    make_surrogate(run.surrogate, smashed_shape=smashed_shape(encoder, image), num_classes=2, noise_std=run.noise_std)
