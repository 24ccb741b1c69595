"""How far Theorem 1's floor is below what attacks reach: its largest value that the images allow, and the factor.

The floor is drawn with an upper bound on the entropy of the images, so it is put too high; --bits puts another model's
bits a number in its place. RESULTS.csv: a study's results (or those kept in docs/results).
Usage: python benchmarks/floor.py DATA.h5 RESULTS.csv [--bits 2.8]
"""

import argparse
import math
from pathlib import Path

import numpy as np
import pandas as pd

from cem.report.floor import MOST_IMAGES, error_floor, image_entropy
from cem.storage.hdf5 import open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--bits", type=float, help="bits a number of an image takes; absent: measured")
    options = parser.parse_args()
    with open_dataset(options.data) as file:
        private, test = (file.images(split) for split in ("private", "test"))
    private, test = (images[:: -(-len(images) // MOST_IMAGES)] for images in (private, test))
    measured = image_entropy(private, test)
    bits = options.bits if options.bits is not None else (measured + math.log(255)) / math.log(2)
    entropy, pixels = bits * math.log(2) - math.log(255), int(np.prod(test.shape[1:]))
    highest = error_floor(entropy, 0, pixels)
    print(f"{bits:.2f} bits a number, h(x)/d at most {entropy:.2f} nats; floor at I = 0: {highest:.3g}")
    results = pd.read_csv(options.results)
    if "scope" in results:
        results = results[results["scope"] == "infer"]
    best = results[results["strongest"] & np.isfinite(results["leakage_nats"])].sort_values("leakage_nats")
    floors = np.array([error_floor(entropy, nats, pixels) for nats in best["leakage_nats"]])
    factors = best["mse"].to_numpy() / floors
    for (_, row), floor, factor in zip(best.iterrows(), floors, factors, strict=True):
        print(f"{row['leakage_nats']:8.1f} nats  attack {row['mse']:.4g}  floor {floor:.3g}  factor {factor:.0f}")
    print(f"{len(best)} runs: the attacks' errors are {factors.min():.0f} to {factors.max():.0f} times the floor")


if __name__ == "__main__":
    main()
