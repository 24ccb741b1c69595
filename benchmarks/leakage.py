"""Both bounds on the leakage of each encoder beside what the strongest attack rebuilt, and whether their orders agree.

Prints the report's tables of a finished study as Markdown. Exit code 1 when an upper bound of a run is below its lower
one, at the run's σ or where the lower bound is not saturated.
Usage: python benchmarks/leakage.py [config/leakage_mnist.yaml] [--results results]
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd

from cem.config import load_study
from cem.planning.plan import Plan
from cem.report.groups import group_plan
from cem.report.inputs import read_results
from cem.report.leakage import compare_orders, leakage_table, orders_table
from cem.report.scores import Scores
from cem.report.table import Table
from cem.report.tables import attacks_table, summary_table
from cem.report.threat import threat_models

SHOWN = ("runs", "seeds", "accuracy, %", "strongest attack", "MSE, Infer", "leakage ≤, nats", "leakage ≥, nats")


def markdown(table: Table) -> str:
    lines = [table.header, ("---",) * len(table.header), *table.rows]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), *(f"\n{note}" for note in table.notes)])


def crossed(results: pd.DataFrame) -> list[str]:
    """Runs whose upper bound is below the lower one."""
    bad = results["leakage_nats"] < results["leakage_lower_nats"]
    bad |= results["unsaturated_leakage_nats"] < results["unsaturated_leakage_lower_nats"]
    return sorted(results.loc[bad, "run"].unique())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("study", type=Path, nargs="?", default=Path("config/leakage_mnist.yaml"))
    parser.add_argument("--results", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    plan = Plan(load_study(arguments.study), arguments.results)
    results = read_results(plan, plan.folder / "results.parquet")
    groups, scores = group_plan(plan), Scores(plan)
    print("MSE of every attack on Infer.\n")
    print(markdown(replace(attacks_table(plan, groups, results, scores), notes=())), end="\n\n")
    for threat in threat_models(plan):
        whole = summary_table(plan, groups, results, threat, scores)
        kept = [whole.header.index(name) for name in SHOWN if name in whole.header]
        rows = [tuple(row[index] for index in kept) for row in whole.rows]
        orders = compare_orders(groups, results, threat, scores)
        swaps = orders_table(orders)
        print(f"The attacker {threat.sentence}.\n")
        print(markdown(Table("errors", tuple(whole.header[index] for index in kept), rows, whole.notes)), end="\n\n")
        if (bounds := leakage_table(groups, results, threat)) is not None:
            print(markdown(bounds), end="\n\n")
        print(f"Comparisons of two rows by a bound and by error that agree beyond their intervals: {orders.agreeing}; "
              f"that do not: {len(orders.swaps)}.\n")  # fmt: skip
        if swaps is not None:
            print(markdown(swaps), end="\n\n")
    bad = crossed(results)
    print(f"Upper bounds below the lower one: {', '.join(bad) or 'none'}.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
