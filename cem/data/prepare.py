"""From raw images to the one file that all later stages read."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from cem.config import Dataset
from cem.data.sources import read_source
from cem.data.splits import split_indices
from cem.storage.hdf5 import SPLITS, write_file

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue: ITU-R BT.601
_BATCH = 1000  # images converted at a time: bounds the memory

Raw = UInt8[np.ndarray, "n height width"] | UInt8[np.ndarray, "n height width 3"]


def prepare_data(dataset: Dataset, path: str | Path) -> None:
    """Read, divide, resize and write a data set; `cem.storage.open_dataset` reads it back. Equal settings, equal bytes.

    Each of the four splits has `images` uint8 [n, channels, side, side], `labels` int64 [n] and `index` int64 [n], the
    row in the source. Raises DataError when the raw data cannot be used, StoreError when the file cannot be written.
    """
    source = read_source(dataset)
    rows = split_indices(source.labels, source.is_test, dataset.split, dataset.name)
    settings = {key: value for key, value in dataset.sparse().items() if key != "augment"}  # happens after this file
    attrs = {
        "name": dataset.name,
        "class_names": list(source.class_names),
        "description": source.description,
        "source": settings,
        "source_sha256": source.sha256,
    }
    with write_file(path, kind="dataset", attrs=attrs) as file:
        for split in SPLITS:
            shape = (len(rows[split]), dataset.channels, dataset.side, dataset.side)
            images = file.create_dataset(f"{split}/images", shape, np.uint8)
            for start in range(0, len(rows[split]), _BATCH):
                batch = rows[split][start : start + _BATCH]
                images[start : start + _BATCH] = to_shape(source.images[batch], dataset.channels, dataset.side)
            file[f"{split}/labels"] = source.labels[rows[split]]
            file[f"{split}/index"] = rows[split].astype(np.int64)


def to_shape(images: Raw, channels: int, side: int) -> UInt8[np.ndarray, "n channels side side"]:
    """Images with the channels and the side asked for.

    Colour becomes grey as luma (ITU-R BT.601), grey becomes colour by repeating. Another size is resampled with
    antialiased bilinear interpolation, width and height on their own, so an image that is not square is
    squeezed. Nothing is rounded twice, and what needs no change stays as it is, byte for byte.
    """
    pixels = torch.from_numpy(images)
    pixels = pixels[:, None] if images.ndim == 3 else pixels.permute(0, 3, 1, 2)
    if channels == 1 and pixels.shape[1] == 3:
        pixels = torch.einsum("nchw,c->nhw", pixels.float(), torch.tensor(_LUMA))[:, None]
    if pixels.shape[2:] != (side, side):
        pixels = interpolate(pixels.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    return _whole(pixels).expand(-1, channels, -1, -1).numpy()


def _whole(pixels: Tensor) -> UInt8[Tensor, "n c h w"]:
    return pixels if pixels.dtype == torch.uint8 else pixels.round().clamp(0, 255).to(torch.uint8)
