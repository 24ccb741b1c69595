"""Where images come from: one module per kind of source. None of them needs torch to be imported."""

from cem.config import DatasetSettings
from cem.data.sources.source import DataError, Format, Labelling, Source

__all__ = ["DataError", "Format", "Labelling", "Source", "read_labels", "read_source"]


def read_source(dataset: DatasetSettings) -> Source:
    """Read the raw images and labels of a data set. Raises DataError; see `Format`."""
    form: Format = dataset.load()
    return form.read(dataset)


def read_labels(dataset: DatasetSettings) -> Labelling | None:
    """What can be known of a data set in a moment and without torch. Raises DataError; see `Format`."""
    form: Format = dataset.load()
    return form.read_labels(dataset)
