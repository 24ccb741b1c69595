"""Every attack of a study on each of its runs, as Markdown tables: errors, and what is recognised and identified.

Reads the metrics of test images (scope Infer) of a finished study. A second table holds each attack against the decoder
on the very images that both were scored on, since some attacks answer fewer.
Usage: python benchmarks/attack_table.py results/attacks_cifar10
"""

import argparse
import math
import sys
from pathlib import Path

import pandas as pd

SHARES = ("identified", "identified_of_1000", "recognised")
COLUMNS = ("mse", "ssim", *SHARES, "embedding_similarity")
SCORES = ("MSE", "of the mean image's", "SSIM", "identified of 100", "of 1,000", "recognised", "embedding similarity")
HEADER = ("attack", "images", *SCORES, "fit, s", "")
AGAINST = ("attack", "images", "MSE", "identified of 1,000", "recognised", "embedding similarity")


def line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def shown(name: str, value: float) -> str:
    """A cell: shares in percent; what an attack lacks is empty."""
    if math.isnan(value):
        return ""
    if name in SHARES:
        return f"{100 * value:.1f} %"
    return f"{value:.5f}" if name == "mse" else f"{value:.3f}"


def scored(folder: Path, run: str, attack: str) -> pd.DataFrame:
    """One row a test image."""
    metrics = pd.read_parquet(folder / "runs" / run / "attacks" / attack / "metrics.parquet")
    return metrics[metrics["scope"] == "infer"].set_index("index").reindex(columns=["mse_mean_image", *COLUMNS])


def mark(row: pd.Series) -> str:
    """What the gate says of a number."""
    if row["attack_ok"]:
        return ""
    if row["attack_weak"]:
        return "weak"
    return "≤" if row["attack_bound"] else str(row["attack_verdict"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    results = pd.read_parquet(folder / "results.parquet").query("scope == 'infer'")
    for run, rows in results.groupby("run", sort=False):
        print(f"\n## {run}\n")
        print(f"Accuracy {100 * rows['accuracy'].iloc[0]:.1f} %.\n")
        print(line(HEADER), line(["---"] * len(HEADER)), sep="\n")
        found = {row["attack"]: scored(folder, str(run), row["attack"]) for _, row in rows.iterrows()}
        for _, row in rows.iterrows():
            mean = found[row["attack"]].astype(float).mean()
            ratio = f"{mean['mse'] / mean['mse_mean_image']:.3f}"
            cells = [shown(name, mean[name]) for name in COLUMNS]
            cells = [row["attack"], f"{len(found[row['attack']]):,}", cells[0], ratio, *cells[1:]]
            print(line([*cells, f"{row['attack_seconds']:.0f}", mark(row)]))
        if "decoder" not in found:
            continue
        print("\nAttack and `decoder` on the same images, attack first:\n")
        print(line(AGAINST), line(["---"] * len(AGAINST)), sep="\n")
        for attack, here in found.items():
            there = found["decoder"].reindex(here.index)
            if attack == "decoder" or there["mse"].isna().any():
                continue
            a, b = here.astype(float).mean(), there.astype(float).mean()
            names = ("mse", "identified_of_1000", "recognised", "embedding_similarity")
            pairs = [" / ".join((shown(name, a[name]) or "–", shown(name, b[name]) or "–")) for name in names]
            print(line([attack, f"{len(here):,}", *pairs]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
