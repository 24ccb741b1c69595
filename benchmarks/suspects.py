"""What each mend of the first attention surrogate changes: the table of the four suspects, as Markdown.

From results of config/suspects_fashion.yaml, or from rows of them that --keep wrote. Each step is held against the one
before it: points of accuracy, and the strongest attack's error, paired by seed and by the rank of the strength, means
over strengths; Student's t over seeds. Beside it what a step leaves of plain noise's error at its own accuracy. Exit
code 1 where a step has no results.
Usage: python benchmarks/suspects.py results/suspects_fashion/results.csv --keep docs/results/suspects_fashion.csv
       python benchmarks/suspects.py docs/results/suspects_fashion.csv
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from cem.report.equal_accuracy import Comparisons
from cem.report.series import NEEDED, SeriesError
from cem.report.statistics import Estimate, holm, over_seeds, p_text

_FIRST = "attention enhanced_variance"
STEPS = {  # what is changed → the method's name in results.csv; each has the changes before it
    "as first written, but for tokens of z itself": f"{_FIRST}, optimizer frozen, kind coupled, tokens linear",
    "an optimizer of its own": f"{_FIRST}, optimizer own, kind coupled, tokens linear",
    "a threshold that does not follow σ": f"{_FIRST}, optimizer own, kind fixed, tokens linear",
    "a token for each position": f"{_FIRST}, tokens spatial, optimizer own, kind fixed",
    "a statistic that bounds the leakage": "attention mixture",
}
BASELINES = ("gmm legacy", "gmm bound")  # the fourth suspect: there was none


def by_seed(rows: pd.DataFrame, method: str) -> pd.DataFrame:
    """Seed and rank of the strength → accuracy in percent, and the logarithm of the strongest attack's error."""
    mine = rows[rows["method"] == method]
    if mine.empty:
        raise SeriesError(f"expected results of {method!r}, found {', '.join(sorted(rows['method'].unique()))}")
    rank = mine["strength"].rank(method="dense").astype(int).rename("rank")
    found = pd.DataFrame({"accuracy": 100 * mine["accuracy"], "log_error": np.log(mine["mse"])})
    return found.set_index([mine["seed"], rank])


def step(after: pd.DataFrame, before: pd.DataFrame) -> tuple[Estimate, Estimate]:
    """Points of accuracy and logarithm of the error's factor, where both have the seed and the strength."""
    change = (after - before).dropna().groupby("seed").mean()
    return over_seeds(change["accuracy"]), over_seeds(change["log_error"])


def table(rows: pd.DataFrame) -> Iterator[str]:
    front = Comparisons(rows).front()
    methods = [*STEPS.items(), *((f"baseline: {name}", name) for name in BASELINES)]
    numbers = {method: by_seed(rows, method) for _, method in methods}
    names = list(STEPS.values())
    changes = [step(numbers[after], numbers[before]) for before, after in pairwise(names)]
    tests = holm(part.p_value for change in changes for part in change)
    yield "| step | strength | accuracy, % | MSE | times noise | points, to the step before | p | error, times | p |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    for place, (title, method) in enumerate(methods):
        against = [""] * 4
        if 0 < place < len(STEPS):
            points, error = changes[place - 1]
            told = [p_text(p) for p in tests[2 * place - 2 : 2 * place]]
            against = [points.text(), told[0], error.factor_text(), told[1]]
        for row in front[front["method"] == method].sort_values("strength").itertuples():
            accuracy = Estimate(100 * row.accuracy, 100 * (row.accuracy_high - row.accuracy), row.seeds)
            noise = "–"
            if np.isfinite(row.factor_to_noise):
                noise = f"{row.factor_to_noise:.2f} [{row.factor_to_noise_low:.2f}, {row.factor_to_noise_high:.2f}]"
            cells = [
                title, f"{row.strength_name} {row.strength:g}", accuracy.text(4),
                f"{'≤ ' if row.own_limit else ''}{row.mse:.4f}", noise, *against,
            ]  # fmt: skip
            yield f"| {' | '.join(cells)} |"
            title, against = "", [""] * 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.csv of the study, or what --keep wrote")
    parser.add_argument("--keep", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.results)
    rows = rows[(rows["scope"] == "infer") & rows["strongest_of"].notna()]
    try:
        text = "\n".join(table(rows))
    except SeriesError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.keep:
        rows[list(NEEDED)].to_csv(arguments.keep, index=False, lineterminator="\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
