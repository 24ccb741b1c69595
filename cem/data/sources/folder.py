"""Images in one folder for each class."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from cem.config import ImageFolderDataset
from cem.data.sources.source import DataError, Format, Labelling, Source, check_labels, make_source

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
_GREY, _COLOUR = ("1", "L"), ("P", "RGB", "CMYK", "YCbCr")
_CHECKED = 1000  # images whose size is looked at before any job starts


def read_image_folder(dataset: ImageFolderDataset) -> Source:
    """Read all images, classes and files in the order of their names: grey where all are grey, else RGB.

    Raises DataError when there are no classes or images, or an image is damaged, of another size, or not of 8 bits.
    """
    labelling, files = _list(dataset)
    grey = _check_headers(files)
    digest = hashlib.sha256()
    images = []
    for file in files:
        with _open(file) as image:
            images.append(np.asarray(image.convert("L" if grey else "RGB")))
        digest.update(str(file.relative_to(dataset.path)).encode() + b"\0" + file.read_bytes())
    description = f"Images of the folder {Path(dataset.path).name}."
    return make_source(dataset.path, np.stack(images), labelling, description, digest.hexdigest())


def list_image_folder(dataset: ImageFolderDataset) -> Labelling:
    """Classes and labels from the names; the sizes of up to 1,000 images, spread evenly. Raises DataError."""
    labelling, files = _list(dataset)
    _check_headers(files[:: -(-len(files) // _CHECKED)])
    return labelling


def _list(dataset: ImageFolderDataset) -> tuple[Labelling, list[Path]]:
    root = Path(dataset.path)
    if not root.is_dir():
        raise DataError(f"{root}: expected a folder of folders, one for each class; found none. Check the path.")
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(folders) < 2:
        raise DataError(f"{root}: expected at least 2 folders, one for each class, found {len(folders)}.")
    files = [sorted(file for file in folder.iterdir() if file.suffix.lower() in EXTENSIONS) for folder in folders]
    labels = np.repeat(np.arange(len(folders)), [len(part) for part in files])
    names = [folder.name for folder in folders]
    return check_labels(dataset.path, labels, class_names=names), [file for part in files for file in part]


def _check_headers(files: list[Path]) -> bool:
    """Whether all images are grey. Raises DataError unless all are of one size and of a kind that can be read."""
    first, size, grey = files[0], None, True
    for file in files:
        with _open(file) as image:
            size = size or image.size
            if image.size != size:
                raise DataError(
                    f"expected images of one size, found {first} with {size[0]}×{size[1]} and {file} with "
                    f"{image.size[0]}×{image.size[1]} pixels. Crop or resize them to one size first."
                )
            if image.mode not in _GREY + _COLOUR:
                raise DataError(
                    f"{file}: expected 8-bit grey or colour without transparency, found Pillow's mode {image.mode!r}. "
                    "Convert the image first."
                )
            grey = grey and image.mode in _GREY
    return grey


@contextmanager
def _open(file: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, SyntaxError) as error:
        raise DataError(f"{file}: expected an image, cannot read it: {error}. Replace or remove the file.") from None


IMAGE_FOLDER = Format(read_image_folder, list_image_folder)
