"""What each method leaves at equal accuracy beside plain noise, as Markdown, from results of one study or several.

With --keep, what the tables rest on is also written to a small CSV, from which the same tables come again.
Usage: python benchmarks/defenses.py results/defenses_mnist/results.csv --keep docs/results/defenses_mnist.csv
       python benchmarks/defenses.py docs/results/defenses_mnist.csv
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from cem.report.equal_accuracy import POINTS, Comparisons
from cem.report.equal_tables import markdown
from cem.report.series import NEEDED, SeriesError


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="+", help="results.csv of studies, or what --keep wrote")
    parser.add_argument("--keep", type=Path, help="CSV to write")
    parser.add_argument("--points", type=float, nargs="+", default=POINTS, help="percent points of accuracy given up")
    arguments = parser.parse_args()
    results = pd.concat([pd.read_csv(path) for path in arguments.results], ignore_index=True)
    try:
        text = markdown(Comparisons(results, points=tuple(arguments.points)))
    except SeriesError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments.keep:
        kept = results[(results["scope"] == "infer") & results["strongest_of"].notna()]
        kept[list(NEEDED)].to_csv(arguments.keep, index=False, lineterminator="\n")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
