"""What can be known of a data set before any job starts."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from cem.config import AttackSettings, DatasetSettings, Run
from cem.data.sources import DataError, read_labels
from cem.data.splits import split_indices
from cem.storage.hdf5 import SPLITS, open_dataset

Counts = dict[str, Int[np.ndarray, " class"]]  # split → images of each class


def count_images(dataset: DatasetSettings, prepared: Path) -> tuple[Counts, tuple[str, ...]] | None:
    """Images of each class in each split, and the classes' names; None where the data may still have to be downloaded.

    prepared: where the prepared data set is, or will be: it is asked where it exists, else the raw files. Raises
    DataError for what can be known to be wrong with these, without torch: files that are absent, truncated or of another
    format, labels that do not fit, an empty class, too few images for the splits. Damage inside compressed images shows
    only when they are read.
    """
    if prepared.exists():
        with open_dataset(prepared) as reader:
            return {split: _count(reader.labels(split), reader.num_classes) for split in SPLITS}, tuple(
                reader.class_names
            )
    known = read_labels(dataset)
    if known is None:
        return None
    rows = split_indices(known.labels, known.is_test, dataset.split, dataset.name)
    counts = {split: _count(known.labels[rows[split]], len(known.class_names)) for split in SPLITS}
    return counts, known.class_names


def check_run(run: Run, counts: Counts, names: tuple[str, ...]) -> None:
    """Raise DataError when a run has too few private images for a batch, or for its surrogate."""
    private, needed = counts["private"], run.surrogate.smallest_class
    if private.sum() < run.training.batch_size:
        raise DataError(
            f"{run.id}: training.batch_size is {run.training.batch_size}, but {run.dataset.name} has {private.sum()} "
            "private images: no batch would be full. Lower it, or enlarge the private split."
        )
    few = np.flatnonzero(private < needed)
    if len(few):
        listed = ", ".join(f"{names[label]!r} ({private[label]})" for label in few[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"{run.id}: the surrogate {run.surrogate.member} needs at least {needed} private images of every class; too "
            f"few are in {listed}{more}. Enlarge the private split (split.private, or smaller val, shadow and test), add "
            "images, leave the class out, or use another surrogate."
        )


def check_attack(attack: AttackSettings, dataset: DatasetSettings, counts: Counts) -> None:
    """Raise DataError when an attacker is to own more images than there are."""
    owned = counts[attack.data].sum()
    if attack.data_size is not None and attack.data_size > owned:
        raise DataError(
            f"attack {attack.id}: data_size is {attack.data_size}, but {attack.data} of {dataset.name} has {owned} "
            "images. Lower it, or enlarge that split."
        )


def _count(labels: Int[np.ndarray, " n"], classes: int) -> Int[np.ndarray, " class"]:
    return np.bincount(labels, minlength=classes)
