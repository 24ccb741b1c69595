"""What can be known of a data set before any job starts."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from cem.config import AttackSettings, DatasetSettings, Run
from cem.data.sources import DataError, read_labels
from cem.data.splits import count_classes, divide
from cem.storage.hdf5 import SPLITS, open_dataset


class Counted(NamedTuple):
    """How many images of each of its classes each split has, what the classes are called, and what was left out.

    class_names: of all splits, or of all but shadow where that has other classes.
    """

    counts: dict[str, Int[np.ndarray, " class"]]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def check_files(dataset: DatasetSettings) -> Counted | None:
    """Images of each class in each split; None where the data may still have to be downloaded.

    Raises DataError for what can be known to be wrong with a data set before any job starts; without torch. These are
    files that are absent, truncated or of another format, labels that do not fit, an empty class, too few images for
    the splits. Damage inside compressed images shows only when they are read.
    """
    known = read_labels(dataset)
    if known is None:
        return None
    division = divide(known, dataset)
    return Counted(division.counts(), division.class_names, (*known.notes, *division.notes))


def count_prepared(path: Path) -> Counted:
    """As `check_files`, of a data set that is prepared: its raw files are not needed any more. Raises StoreError."""
    with open_dataset(path) as reader:
        labels = {split: reader.labels(split) for split in SPLITS}
        counts = count_classes(labels, reader.class_names, reader.shadow_class_names)
        return Counted(counts, tuple(reader.class_names), reader.notes)


def check_run(run: Run, known: Counted) -> None:
    """Raise DataError when a run has too few private images for a batch, or for its surrogate."""
    private, needed = known.counts["private"], run.surrogate.smallest_class
    if run.surrogate.measures_threshold:
        needed = max(needed, 2)  # of a class of one there is no variance to take a quantile of
    if run.trained and private.sum() < run.training.batch_size:
        raise DataError(
            f"{run.id}: training.batch_size is {run.training.batch_size}, but {run.dataset.name} has {private.sum()} "
            "private images: no batch would be full. Lower it, or enlarge the private split."
        )
    few = np.flatnonzero(private < needed)
    if len(few):
        listed = ", ".join(f"{known.class_names[label]!r} ({private[label]})" for label in few[:5])
        more = f" and {len(few) - 5} more" if len(few) > 5 else ""
        raise DataError(
            f"{run.id}: the surrogate {run.surrogate.member} needs at least {needed} private images of every class; "
            f"fewer are of {listed}{more}. Enlarge the private split (split.private, or smaller val, shadow and test), "
            "add images, leave the class out, or use another surrogate."
        )


def check_attack(attack: AttackSettings, dataset: DatasetSettings, known: Counted) -> None:
    """Raise DataError when an attacker is to own more images than there are, or too few to fit and to select on."""
    owned = known.counts[attack.data].sum()
    if attack.data_size is not None and attack.data_size > owned:
        raise DataError(
            f"attack {attack.id}: data_size is {attack.data_size}, but {attack.data} of {dataset.name} has {owned} "
            "images. Lower it, or enlarge that split."
        )
    has = owned if attack.data_size is None else attack.data_size
    if has < attack.least_images:
        raise DataError(
            f"attack {attack.id}: expected an attacker with at least {attack.least_images} images, found {has} "
            f"({attack.data} of {dataset.name}). Raise data_size, or enlarge that split."
        )
