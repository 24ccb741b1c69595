"""A study's front as a small CSV and a table: accuracy against what the strongest attack leaves, run by run.

Writes one line for each run and attack (on Infer) to the CSV, and prints the table in Markdown: the strongest attack
of each run, and its MSE with the standard error over images.
Usage: python benchmarks/front.py results/front_cifar10 docs/results/front_cifar10.csv
"""

import argparse
from pathlib import Path

import pandas as pd

COLUMNS = [
    "surrogate", "formula", "weight", "noise_std", "seed", "reference", "accuracy", "leakage_nats", "attack", "mse",
    "mse_image_sem", "mse_ratio_to_mean_image", "ssim", "rank1", "attack_ok", "attack_bound", "strongest",
    "strongest_bound",
]  # fmt: skip
FLOAT = "%.5g"  # the spread over images is in the third digit


def row(run: pd.Series) -> str:
    bound = "≤ " if run["strongest_bound"] else ""
    cells = (
        "undefended reference" if run["reference"] else " ".join(filter(None, (run["surrogate"], run["formula"]))),
        f"{run['weight']:g}",
        f"{100 * run['accuracy']:.1f}",
        run["attack"],
        f"{bound}{run['mse']:.5f} ± {run['mse_image_sem']:.5f}",
        f"{run['mse_ratio_to_mean_image']:.3f}",
        f"{run['ssim']:.3f}",
        f"{run['leakage_nats']:.0f}",
    )
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path)
    parser.add_argument("csv", type=Path)
    arguments = parser.parse_args()
    results = pd.read_parquet(arguments.study / "results.parquet").query("scope == 'infer'")
    order = ["reference", "surrogate", "formula", "weight", "seed"]
    results = results.fillna({"formula": ""}).sort_values([*order, "attack"], ascending=[False] + [True] * len(order))
    results[COLUMNS].to_csv(arguments.csv, index=False, float_format=FLOAT)
    print("| runs | λ | accuracy, % | strongest attack | MSE, Infer | of the mean image's | SSIM | leakage, nats |")
    print("|---|---|---|---|---|---|---|---|")
    for _, run in results[results["strongest"]].iterrows():
        print(row(run))


if __name__ == "__main__":
    main()
