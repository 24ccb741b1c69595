"""Does a learned surrogate beat the mixture, and plain noise? The tables of docs/results/answer.md, as Markdown.

From the results of a study, or from the rows of it that --keep wrote: each attack on each run by itself, with what its
ladder of budgets found on held-out images.
Usage: python benchmarks/answer.py results/answer_cifar10 --keep docs/results/answer_cifar10.csv
       python benchmarks/answer.py docs/results/answer_cifar10.csv
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from cem.report.equal_accuracy import Comparisons
from cem.report.equal_tables import markdown
from cem.report.series import NEEDED
from cem.storage.job_records import AttackRecord
from cem.storage.records import read_record

POINTS = (2.0, 5.0)
LADDER = ("quarter", "half", "whole")  # held-out errors of the last three budgets, each twice the one before
KEPT = (
    *NEEDED, "attack_bound", "attack_weak", "train_seconds", "leakage_nats", "leakage_lower_nats",
    "leakage_lower_saturated", "conditional_nats",
)  # fmt: skip
LEAKAGE = {  # never mixed: each is held against errors over the runs that have it
    "leakage_nats": "upper bound of the leakage",
    "leakage_lower_nats": "lower bound of the leakage, where not saturated",
    "conditional_nats": "conditional entropy that `conditional` reads, relative to h(x)",
}


def of_study(folder: Path) -> pd.DataFrame:
    """The rows of the attacks on images of the test split."""
    results = pd.read_csv(folder / "results.csv")
    rows = results.loc[results["scope"] == "infer", list(KEPT)].reset_index(drop=True)
    for place, row in rows.iterrows():
        file = folder / "runs" / row["run"] / "attacks" / row["attack"] / "attack.json"
        record = read_record(file, AttackRecord, "attack")
        for name, rung in zip(reversed(LADDER), reversed(record.ladder), strict=False):
            rows.loc[place, name] = rung.val_mse
    return rows


def of_attack(rows: pd.DataFrame, attack: str) -> pd.DataFrame:
    """Rows in which this attack is held for the strongest."""
    model = rows["strongest_of"].dropna().iloc[0]
    chosen = rows[rows["attack"] == attack]
    return chosen.assign(strongest_of=model, strongest_bound=chosen["attack_bound"])


def by_attacker(rows: pd.DataFrame, attacks: list[str]) -> Iterator[str]:
    """At equal accuracy, what each attacker by itself finds: factors of error to plain noise."""
    yield "| points below | method | " + " | ".join(attacks) + " |"
    yield "| --- | --- |" + " ---: |" * len(attacks)
    frames = {attack: Comparisons(of_attack(rows, attack), points=POINTS).equal_accuracy() for attack in attacks}
    first = frames[attacks[0]]
    for points, method in zip(first["points_below"], first["method"], strict=True):
        cells = []
        for frame in frames.values():
            (row,) = frame[(frame["points_below"] == points) & (frame["method"] == method)].itertuples()
            if np.isfinite(row.factor_to_noise):
                low, high = row.factor_to_noise_low, row.factor_to_noise_high
                cells.append(f"{row.factor_to_noise:.2f}" + (f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""))
        if cells:
            yield f"| {points:g} | {method} | " + " | ".join(cells) + " |"


def patience(rows: pd.DataFrame) -> Iterator[str]:
    """What the attackers' last doublings of their budget gained."""
    yield "| method | attack | runs | first doubling, % | second doubling, % | converged |"
    yield "| --- | --- | ---: | ---: | ---: | ---: |"
    for (method, attack), found in rows[rows["whole"].notna()].groupby(["method", "attack"], sort=False):
        gains = [_gain(found, before, after) for before, after in pairwise(LADDER)]
        converged = (~found["attack_bound"].astype(bool)).sum()
        yield f"| {method} | {attack} | {len(found)} | " + " | ".join(gains) + f" | {converged} |"


def _gain(found: pd.DataFrame, before: str, after: str) -> str:
    return f"{100 * (1 - np.exp(np.log(found[after] / found[before]).mean())):.1f}"


def correlations(rows: pd.DataFrame) -> Iterator[str]:
    """Spearman's rank correlation of leakage with the error of the strongest attack."""
    yield "| number | runs | Spearman's ρ with the strongest attack's error |"
    yield "| --- | ---: | ---: |"
    strongest = rows[rows["strongest_of"].notna()].drop_duplicates("run")
    saturated = strongest["leakage_lower_saturated"].fillna(False).astype(bool)
    for name, words in LEAKAGE.items():
        known = strongest[np.isfinite(strongest[name]) & ~(saturated & (name == "leakage_lower_nats"))]
        rho = f"{spearmanr(known[name], known['mse']).statistic:.2f}" if len(known) > 2 else "–"
        yield f"| {words} (`{name}`) | {len(known)} | {rho} |"


def tables(rows: pd.DataFrame) -> str:
    trained = list(rows.loc[rows["attack"] != "mean_image", "attack"].unique())
    parts: list[tuple[str, Callable[[], Iterator[str]]]] = [
        ("Each attacker by itself, times the error under plain noise that costs the same accuracy (95 % interval):",
         lambda: by_attacker(rows, trained)),
        ("What the last two doublings of the attackers' budget took from their held-out error (geometric means):",
         lambda: patience(rows)),
        ("Leakage and error, over all runs:", lambda: correlations(rows)),
    ]  # fmt: skip
    text = markdown(Comparisons(rows, points=POINTS))
    return text + "".join(f"\n{words}\n\n" + "\n".join(lines()) + "\n" for words, lines in parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="folder of a study, or what --keep wrote")
    parser.add_argument("--keep", type=Path, help="CSV to write")
    options = parser.parse_args()
    rows = of_study(options.source) if options.source.is_dir() else pd.read_csv(options.source)
    if options.keep:
        rows.to_csv(options.keep, index=False, lineterminator="\n", float_format="%.6g")
        rows = pd.read_csv(options.keep)
    print(tables(rows), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
