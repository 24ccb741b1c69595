"""From raw images to the one file that all later stages read."""

import gc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from cem.config import DatasetSettings
from cem.data.sources import DataError, Source, read_source
from cem.data.sources.files import shown
from cem.data.sources.picture import Pictures, without_warnings
from cem.data.sources.source import Raw, several_sizes
from cem.data.splits import divide
from cem.storage.hdf5 import SPLITS, write_file

_LUMA = (0.299, 0.587, 0.114)  # weights of red, green, blue: ITU-R BT.601
_BATCH, _BYTES = 128, 4 << 20  # images converted at a time: few stay in the cache; bytes of them: bounds the memory

RawBatch = UInt8[np.ndarray, "n height width"] | UInt8[np.ndarray, "n height width 3"]


def prepare_data(dataset: DatasetSettings, path: str | Path) -> Source:
    """Read, divide, resize and write a data set; `cem.storage.open_dataset` reads it back. Equal settings, equal bytes.

    Each of the four splits has `images` uint8 [n, channels, side, side], `labels` int64 [n] and `index` int64 [n], the
    row in the source. Gives the source. Raises DataError when the raw data cannot be used, StoreError when the file
    cannot be written.
    """
    source = read_source(dataset)
    division = divide(source, dataset)
    rows = division.rows
    settings = {key: value for key, value in dataset.sparse().items() if key != "augment"}  # happens after this file
    attrs = {
        "name": dataset.name,
        "class_names": list(division.class_names),
        "description": source.description,
        "source": settings,
        "fit": dataset.fit,
    }
    if division.shadow_class_names:
        attrs["shadow_class_names"] = list(division.shadow_class_names)
    fitter, digests = Fitter(source, dataset), Digests()
    with _one_thread(), _what_is_here_kept(), without_warnings(), write_file(path, kind="dataset", attrs=attrs) as file:
        for split in SPLITS:
            shape = (len(rows[split]), dataset.channels, dataset.side, dataset.side)
            images = file.create_dataset(f"{split}/images", shape, np.uint8)
            for places, fitted in fitter.fitted(rows[split]):
                images[places] = fitted
                digests.add(split, fitted)
            file[f"{split}/labels"] = division.labels[rows[split]]
            file[f"{split}/index"] = rows[split].astype(np.int64)
        file.attrs["source_sha256"] = source.sha256  # now that its files were read
        file.attrs["original_sizes"] = fitter.described_sizes()
        file.attrs["notes"] = json.dumps([*source.notes, *division.notes, *digests.notes(), *source.remarks()])
    return source


@dataclass
class Digests:
    """Which images stand in two splits, pixel for pixel, as they are after fitting."""

    of: dict[str, list[bytes]] = field(default_factory=lambda: {split: [] for split in SPLITS})

    def add(self, split: str, images: UInt8[np.ndarray, "batch c h w"]) -> None:
        """Count these in."""
        self.of[split] += [sha256(image).digest() for image in images]

    def notes(self) -> list[str]:
        """A sentence for each pair of splits that should share none, and does."""
        pairs = [("test", "private"), ("test", "val"), ("test", "shadow"), ("shadow", "private")]
        found = []
        for split, other in pairs:
            there = set(self.of[other])
            if count := sum(digest in there for digest in self.of[split]):
                are = "image of {} is" if count == 1 else "images of {} are"
                found.append(
                    f"{count} {are.format(split)} also in {other}, pixel for pixel: the source has copies. Remove "
                    "them: an image in two splits makes scores of one speak of the other."
                )
        return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread: beside batches as small as these, others do little but wait for the next, busily."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _what_is_here_kept() -> Iterator[None]:
    """Python's collector leaves alone what exists already, such as the list of the files: many images wake it often."""
    kept = gc.get_freeze_count() > 0  # as in a job: then that stays so
    gc.freeze()
    try:
        yield
    finally:
        if not kept:
            gc.unfreeze()


@dataclass
class Fitter:
    """Brings the images of a source to one shape, a batch at a time, and remembers how large they were."""

    source: Source
    dataset: DatasetSettings
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # width, height → images
    first: int = 0  # row of the first image

    def fitted(self, rows: Int[np.ndarray, " n"]) -> Iterator[tuple[slice, UInt8[np.ndarray, "batch c h w"]]]:
        """The images of these rows, in their order: places in it, and the images there.

        Raises DataError where an image is damaged, or has another size and the settings do not say what then.
        """
        start, taken = 0, 0
        batch: list[Raw] = []
        order: list[int] = rows.tolist()
        images = self.source.images
        # No subclass, which may give another image for a row.
        each = images.each(order) if type(images) is Pictures else map(images.__getitem__, order)
        for stop, (row, image) in enumerate(zip(order, each, strict=True), 1):
            self._note_size(row, image)
            batch.append(image)
            taken += image.nbytes
            if len(batch) == _BATCH or taken >= _BYTES or stop == len(rows):
                yield slice(start, stop), fit_batch(batch, self.dataset)
                start, taken, batch = stop, 0, []

    def described_sizes(self) -> str:
        """How large the images were, width by height, in words."""
        by_area = sorted(self.sizes, key=lambda size: (size[0] * size[1], size))
        smallest, largest = (f"{width}×{height}" for width, height in (by_area[0], by_area[-1]))
        if len(by_area) == 1:
            return smallest
        (width, height), count = max(self.sizes.items(), key=lambda item: (item[1], item[0]))
        return f"{len(by_area)} sizes from {smallest} to {largest}, most often {width}×{height} ({count} images)"

    def _called(self, row: int) -> str:
        files = self.source.images.files if isinstance(self.source.images, Pictures) else None
        return f"image {row}" if files is None else shown(files[row])

    def _note_size(self, row: int, image: Raw) -> None:
        size = (image.shape[1], image.shape[0])
        if size not in self.sizes:
            if not self.sizes:
                self.first = row
            elif self.dataset.fit == "one_size":
                (other,) = self.sizes
                found = several_sizes({other: self._called(self.first), size: self._called(row)})
                raise DataError(f"{self.dataset.name}: {found}")
        self.sizes[size] += 1


def fit_batch(images: Sequence[Raw], dataset: DatasetSettings) -> UInt8[np.ndarray, "n channels side side"]:
    """Images of any sizes, grey or colour, with the channels and side of the data set; those of one shape together."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(image.shape, []).append(place)
    if len(groups) == 1:
        return to_shape(np.stack([squared_by(image, dataset.fit) for image in images]), dataset.channels, dataset.side)
    found = np.empty((len(images), dataset.channels, dataset.side, dataset.side), np.uint8)
    for places in groups.values():
        squared = np.stack([squared_by(images[place], dataset.fit) for place in places])
        found[places] = to_shape(squared, dataset.channels, dataset.side)
    return found


def squared_by(image: Raw, fit: str) -> Raw:
    """The middle of an image (crop), or the image between black borders (pad); otherwise as it is, to be squeezed."""
    height, width = image.shape[:2]
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return image[top : top + side, left : left + side]
    if fit == "pad":
        side = max(height, width)
        above, before = (side - height) // 2, (side - width) // 2
        borders = [(above, side - height - above), (before, side - width - before), (0, 0)]
        return np.pad(image, borders[: image.ndim])
    return image


def to_shape(images: RawBatch, channels: int, side: int) -> UInt8[np.ndarray, "n channels side side"]:
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
    return _whole(pixels).expand(-1, channels, -1, -1).contiguous().numpy()


def _whole(pixels: Tensor) -> UInt8[Tensor, "n c h w"]:
    return pixels if pixels.dtype == torch.uint8 else pixels.round_().clamp_(0, 255).to(torch.uint8)
