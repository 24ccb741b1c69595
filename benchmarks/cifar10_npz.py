"""Make the .npz file of CIFAR-10 that config/cifar10.yaml and config/front_cifar10.yaml read: x, y, train, classes.

--torchvision FOLDER: from the original, which torchvision downloads into the folder where it is absent.
--jpeg FILE: from a (lossy) copy of JPEG images in one .npz: `jpeg` (the bytes of all files, end to end), `off` (n + 1
offsets into them), `y` (labels), `train` (true for training images), `classes` (names).
--limit-train N, --limit-test N: keep N images, the same number of each class. A fixed seed says which ones, in which
order: equal sources and limits give equal files.
Usage: python benchmarks/cifar10_npz.py OUT.npz (--jpeg FILE | --torchvision FOLDER) [--limit-train N] [--limit-test N]
"""

import argparse
import io
import runpy
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from cem.storage.files import whole_or_absent

CONVERT = Path(__file__).parents[1] / "docs/convert.py"
KEYS = ("jpeg", "off", "y", "train", "classes")


def from_jpeg(path: Path) -> tuple[dict[str, np.ndarray], list[bytes]]:
    """Labels, marks and names; and the JPEG files."""
    with np.load(path, allow_pickle=False) as packed:
        if not set(KEYS) <= set(packed.files):
            raise SystemExit(f"{path}: expected the arrays {', '.join(KEYS)}; found {', '.join(packed.files)}")
        blob, ends, *parts = (packed[name] for name in KEYS)
    return dict(zip(KEYS[2:], parts, strict=True)), [blob[a:b].tobytes() for a, b in pairwise(ends)]


def from_torchvision(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Labels, marks and names; and the images. The files are pickles: docs/convert.py allows only arrays in them."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import download_and_extract_archive

    unpacked = folder / CIFAR10.base_folder
    if not unpacked.is_dir():
        download_and_extract_archive(CIFAR10.url, str(folder), filename=CIFAR10.filename, md5=CIFAR10.tgz_md5)
    convert = runpy.run_path(str(CONVERT))
    batches = [convert["read"](unpacked / name) for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")]
    images, labels = (np.concatenate(part) for part in zip(*batches, strict=True))
    marks = np.arange(len(labels)) < len(labels) - len(batches[-1][1])
    return {"y": labels, "train": marks, "classes": np.array(convert["names"](unpacked / "test_batch"))}, images


def chosen(draws: np.random.Generator, rows: np.ndarray, labels: np.ndarray, limit: int | None) -> np.ndarray:
    """The rows, shuffled; with a limit, the first of each class, class after class."""
    rows = draws.permutation(rows)
    if limit is None:
        return rows
    by_class = [rows[labels[rows] == label] for label in np.unique(labels)]
    each, rest = divmod(limit, len(by_class))
    if rest or not 1 <= each <= min(map(len, by_class)):
        found = f"{limit} for {len(by_class)} classes of {min(map(len, by_class))} images or more"
        raise SystemExit(f"limit: expected equally many images, at least one, of each class; found {found}")
    return np.concatenate([part[:each] for part in by_class])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--jpeg", type=Path)
    source.add_argument("--torchvision", type=Path)
    parser.add_argument("--limit-train", type=int)
    parser.add_argument("--limit-test", type=int)
    arguments = parser.parse_args()
    parts, images = from_jpeg(arguments.jpeg) if arguments.jpeg else from_torchvision(arguments.torchvision)
    draws, labels, train = np.random.default_rng(0), parts["y"].astype(np.int64), parts["train"]
    limits = ((train, arguments.limit_train), (~train, arguments.limit_test))
    rows = np.concatenate([chosen(draws, np.flatnonzero(part), labels, limit) for part, limit in limits])
    if isinstance(images, list):
        images = np.stack([np.asarray(Image.open(io.BytesIO(images[row])).convert("RGB")) for row in rows])
    else:
        images = images[rows]
    with whole_or_absent(arguments.out) as temporary, open(temporary, "wb") as file:
        np.savez(file, x=images, y=labels[rows], train=train[rows], classes=parts["classes"])
    print(f"{arguments.out}: {train[rows].sum()} training and {(~train[rows]).sum()} test images")


if __name__ == "__main__":
    main()
