"""A shuffled epoch and a sequential pass over stored activations, against the same from numpy.memmap.

Each repetition times both readers on the same rows, one right after the other, in alternating order. The ratio of a
pair is the memmap's time over the store's; the median over pairs counts. Both hand out copies, from a warm page cache.

Run: python benchmarks/activations.py
"""

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from cem.storage.hdf5 import Rows, open_activations, write_file

SHAPE = (20_000, 8, 8, 8)
BATCH = 128
PAIRS = 9
REQUIRED = {"shuffled": 0.5, "sequential": 0.8}
Read = Callable[[Rows], np.ndarray]


def seconds(read: Read, batches: Sequence[Rows]) -> float:
    start = perf_counter()
    for rows in batches:
        read(rows)
    return perf_counter() - start


def ratios(store: Read, memmap: Read, batches: Sequence[Rows]) -> list[float]:
    """Speed of the store as a fraction of the memmap's, one value for each pair."""
    found = []
    for pair in range(PAIRS + 1):
        if pair % 2:
            ours, theirs = seconds(store, batches), seconds(memmap, batches)
        else:
            theirs, ours = seconds(memmap, batches), seconds(store, batches)
        found.append(theirs / ours)
    return found[1:]  # the first pair warms the cache


def main() -> int:
    generator = np.random.default_rng(0)
    smashed = generator.random(SHAPE, dtype=np.float32).astype(np.float16)
    starts = range(0, len(smashed), BATCH)
    order = generator.permutation(len(smashed))
    batches: dict[str, list[Rows]] = {
        "shuffled": [order[start : start + BATCH] for start in starts],
        "sequential": [slice(start, start + BATCH) for start in starts],
    }
    with tempfile.TemporaryDirectory() as folder:
        path, plain = Path(folder, "activations.h5"), Path(folder, "smashed.bin")
        with write_file(path, kind="activations") as file:
            file["private/smashed"] = smashed
        smashed.tofile(plain)
        memmap = np.memmap(plain, dtype=smashed.dtype, mode="r", shape=SHAPE)
        failed = []
        with open_activations(path) as activations:
            for name, rows in batches.items():
                measured = ratios(
                    lambda chosen: activations.read("private", chosen, lambda clean: clean),
                    lambda chosen: memmap[chosen].copy() if isinstance(chosen, slice) else memmap[chosen],
                    rows,
                )
                ratio, spread = median(measured), f"{min(measured):.2f} to {max(measured):.2f}"
                print(f"{name}: {ratio:.2f} of memmap's speed ({spread}, {PAIRS} pairs, needed {REQUIRED[name]})")
                if ratio < REQUIRED[name]:
                    failed.append(name)
    if failed:
        print(f"too slow: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
