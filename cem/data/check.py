"""What can be known of a data set before any job starts."""

from cem.config import Dataset
from cem.data.sources import read_labels
from cem.data.splits import split_indices


def check_files(dataset: Dataset) -> None:
    """Raise DataError for what can be known to be wrong with a data set before any job starts; without torch.

    These are files that are absent, truncated or of another format, labels that do not fit, an empty class, too few
    images for the splits. Damage inside compressed images shows only when they are read.
    """
    known = read_labels(dataset)
    if known is not None:
        split_indices(known.labels, known.is_test, dataset.split, dataset.name)
