#!/usr/bin/env python3
"""Make the .npz file that a study reads (x, y, train, classes) from SVHN's .mat files or from CIFAR's python files.

It belongs to the pages, and not to the program, which unpickles nothing: CIFAR's files are pickles, which can run any
program while they are read. This script allows nothing but arrays, bytes and numbers in them.
Usage: python docs/convert.py OUT.npz TRAIN_FILES… --test TEST_FILE
  SVHN:      python docs/convert.py svhn.npz train_32x32.mat --test test_32x32.mat
  CIFAR-10:  python docs/convert.py cifar10.npz cifar-10-batches-py/data_batch_* --test cifar-10-batches-py/test_batch
  CIFAR-100: python docs/convert.py cifar100.npz cifar-100-python/train --test cifar-100-python/test
"""

import argparse
import pickle
from pathlib import Path
from typing import Any

import numpy as np

ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class ArraysOnly(pickle.Unpickler):
    """Ends at anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise SystemExit(f"expected arrays and numbers, found {module}.{name}: this is no file of CIFAR's")
        return super().find_class(module, name)


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [n, 32, 32, 3] and labels."""
    if path.suffix == ".mat":
        from scipy.io import loadmat

        content = loadmat(path)
        return content["X"].transpose(3, 0, 1, 2), content["y"].ravel() % 10  # the digit 0 is stored as 10
    with path.open("rb") as file:
        content = ArraysOnly(file, encoding="bytes").load()
    labels = content.get(b"fine_labels", content.get(b"labels"))
    return content[b"data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), np.array(labels)


def names(path: Path) -> list[str] | None:
    """Of the classes, where a file beside the images lists them."""
    for name, key in (("batches.meta", b"label_names"), ("meta", b"fine_label_names")):
        if path.suffix != ".mat" and (path.parent / name).exists():
            with (path.parent / name).open("rb") as file:
                return [word.decode() for word in ArraysOnly(file, encoding="bytes").load()[key]]
    return None


def main() -> None:
    """Read, join, save."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("train", type=Path, nargs="+")
    parser.add_argument("--test", type=Path, required=True)
    args = parser.parse_args()
    parts = [read(path) for path in [*sorted(args.train), args.test]]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    train = np.arange(len(labels)) < len(labels) - len(parts[-1][1])
    classes = names(args.test) or [str(label) for label in range(int(labels.max()) + 1)]
    np.savez(args.out, x=images, y=labels.astype(np.int64), train=train, classes=np.array(classes))
    print(f"{args.out}: {train.sum()} training and {(~train).sum()} test images of {len(classes)} classes")


if __name__ == "__main__":
    main()
