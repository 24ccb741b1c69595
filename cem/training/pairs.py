"""Activations that come with the data: stored as if an encoder had made them."""

from pathlib import Path

import torch

from cem.config import ActivationsDataset, Run
from cem.data.sources import DataError
from cem.data.sources.files import content_digest
from cem.data.sources.pairs import read_smashed
from cem.defenses import make_defense
from cem.storage.hdf5 import SPLITS, open_dataset, write_file
from cem.training.precision import DType, stored_dtype


def import_activations(run: Run, data: Path, model: Path, dtype: DType, out: Path) -> None:
    """What `extract_activations` is where there is no network: z of all splits, in the order of the prepared images.

    Raises DataError when the file is no longer the one that the images were taken from.
    """
    dataset = run.dataset
    assert isinstance(dataset, ActivationsDataset)
    with open_dataset(data) as file:
        if file.attrs["source_sha256"] != content_digest(dataset.files()):
            raise DataError(
                f"{dataset.path}: expected the file that {data} was prepared from, found another. Delete {data}, and "
                "run again."
            )
        smashed = {split: read_smashed(dataset, split) for split in SPLITS}
        noise_std = make_defense(run.noise_std, run.defenses).channel.noise_std
        stored_as, why = stored_dtype(dtype, noise_std, map(torch.from_numpy, smashed.values()))
        attrs = {"smashed_dtype": stored_as, "smashed_dtype_why": why}
        with write_file(out, "activations", sources={"data": data, "model": model}, attrs=attrs) as target:
            for split in SPLITS:
                target.create_dataset(f"{split}/smashed", data=smashed[split].astype(stored_as))
                target.create_dataset(f"{split}/labels", data=file.labels(split))
