"""Does a learned surrogate beat the mixture, and plain noise? The tables of docs/results/answer.md, as Markdown.

From results of studies, or from rows of them that --keep wrote: each attack on each run by itself, with what its ladder
of budgets found on held-out images. --seeds: those alone, and the strengths alone that were measured in each of them,
since a method is compared over seeds that have all of its strengths.
Usage: python benchmarks/answer.py results/answer_cifar10 --keep docs/results/answer_cifar10.csv
       python benchmarks/answer.py docs/results/answer_cifar10.csv --seeds 0 1 --figure docs/results/answer.svg
"""

import argparse
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from cem.report.equal_accuracy import Comparisons
from cem.report.equal_tables import markdown, paired_table
from cem.report.methods import PLAIN
from cem.report.pictures import finish, look, marker, method_colour, new_figure
from cem.report.series import NEEDED
from cem.storage.job_records import AttackRecord
from cem.storage.records import read_record

POINTS = (2.0, 5.0)
ROUNDING = 1e-5  # of what --keep writes
LADDER = ("quarter", "half", "whole")  # held-out errors of the last three budgets, each twice the one before
KEPT = (
    *NEEDED, "attack_ok", "attack_bound", "attack_weak", "converged", "leakage_nats", "leakage_lower_nats",
    "leakage_lower_saturated", "conditional_nats",
)  # fmt: skip
TICKS = (0.005, 0.01, 0.02, 0.03, 0.05)
LEAKAGE = ("leakage_nats", "leakage_lower_nats", "conditional_nats")


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


def joined(sources: list[pd.DataFrame]) -> pd.DataFrame:
    """Rows of several sources, the last one's where several have a row.

    Raises ValueError where they speak of several data sets, whose errors and h(x) do not compare, or where two measured
    other errors by an attack of one name on one run, as with other budgets.
    """
    rows = pd.concat(sources, ignore_index=True)
    if rows["dataset"].nunique() > 1:
        raise ValueError(f"expected rows of one data set, found {', '.join(sorted(rows['dataset'].unique()))}")
    spread = rows.groupby(["run", "attack"])["mse"].agg(["min", "max"])
    unequal = spread[spread["max"] > spread["min"] * (1 + ROUNDING)]
    if len(unequal):
        run, attack = unequal.index[0]
        raise ValueError(
            f"expected one error of an attack on a run, found {unequal.iloc[0].tolist()} for {attack} on {run}: give "
            "sources of equal attacks"
        )
    return rows.drop_duplicates(["run", "attack"], keep="last")


def of_seeds(rows: pd.DataFrame, seeds: list[int]) -> pd.DataFrame:
    """Rows of these seeds, and of strengths that each of them has."""
    mine = rows[rows["seed"].isin(seeds)]
    key = ["dataset", "method_id", "strength"]
    found = mine[mine["strongest_of"].notna()].groupby(key, dropna=False)["seed"].nunique()
    complete = found[found == len(seeds)].reset_index()[key]
    return mine.merge(complete, on=key)


def factors(rows: pd.DataFrame) -> dict[tuple[str, float, str], str]:
    """Dataset, points below and method → the factor to plain noise's error, its interval, the seeds it is of."""
    cells = {}
    rows_of_table: Any = Comparisons(rows, points=POINTS).equal_accuracy().itertuples()
    for row in rows_of_table:
        if np.isfinite(row.factor_to_noise):
            low, high = row.factor_to_noise_low, row.factor_to_noise_high
            within = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
            cells[row.dataset, row.points_below, row.method] = (
                f"{'≤ ' if row.limit else ''}{row.factor_to_noise:.2f}{within} ({row.factor_to_noise_seeds})"
            )
    return cells


def side_by_side(columns: dict[str, dict[tuple[str, float, str], str]]) -> Iterator[str]:
    """Factors of several kinds as one table; what one of them lacks is a dash."""
    yield "| points below | method | " + " | ".join(columns) + " |"
    yield "| --- | --- |" + " ---: |" * len(columns)
    for key in dict.fromkeys(key for cells in columns.values() for key in sorted(cells, key=lambda one: one[1])):
        yield f"| {key[1]:g} | {key[2]} | " + " | ".join(cells.get(key, "–") for cells in columns.values()) + " |"


def as_strongest(rows: pd.DataFrame, attack: str) -> pd.DataFrame:
    """Rows of this attack, held for the strongest; also where it is weak or an upper limit, not where it failed."""
    model = rows["strongest_of"].dropna().iloc[0]
    passed = rows[["attack_ok", "attack_bound", "attack_weak"]].eq(True).any(axis=1)
    chosen = rows[passed & (rows["attack"] == attack)]
    return chosen.assign(strongest_of=model, strongest_bound=chosen["attack_bound"])


def by_attacker(rows: pd.DataFrame, attacks: list[str]) -> Iterator[str]:
    """What each attacker finds by itself, on the runs that all of them attacked."""
    asked = rows[rows["attack"].isin(attacks)]
    counts = asked.groupby("run")["attack"].nunique()
    common = asked[asked["run"].isin(counts[counts == len(attacks)].index)]
    common = common.assign(strongest_of=rows["strongest_of"].dropna().iloc[0])
    common = of_seeds(common, sorted(common["seed"].unique()))
    yield from side_by_side({attack: factors(as_strongest(common, attack)) for attack in attacks})


def by_budget(rows: pd.DataFrame, attack: str) -> Iterator[str]:
    """The same attacker with a quarter of its budget, with half, with the whole of it: by held-out errors."""
    mine = as_strongest(rows, attack)
    mine = mine[mine[list(LADDER)].notna().all(axis=1)]
    yield from side_by_side({f"{name} budget": factors(mine.assign(mse=mine[name])) for name in LADDER})


def gains(rows: pd.DataFrame) -> Iterator[str]:
    """What the last doubling of the budget took from the held-out error, for each strength."""
    yield "| method | strength | attack | runs | last doubling, % | converged |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    fitted = rows[rows[["half", "whole"]].notna().all(axis=1)]
    for (method, name, strength, attack), found in fitted.groupby(
        ["method", "strength_name", "strength", "attack"], sort=False, dropna=False
    ):
        gain = 100 * (1 - np.exp(np.log(found["whole"] / found["half"]).mean()))
        converged = found["converged"].astype(str).eq("True").sum()
        yield f"| {method} | {name} {strength:g} | {attack} | {len(found)} | {gain:.1f} | {converged} |"


def correlations(rows: pd.DataFrame) -> Iterator[str]:
    """Spearman's rank correlation of each number with the error of the strongest attack, over the runs that have it.

    A lower bound that says no more than that it is saturated orders nothing, and is left out.
    """
    yield "| runs of | " + " | ".join(f"`{name}` (runs)" for name in LEAKAGE) + " |"
    yield "| --- |" + " ---: |" * len(LEAKAGE)
    strongest = rows[rows["strongest_of"].notna()].drop_duplicates(["run", "strongest_of"])
    for method, found in [("all methods", strongest), *strongest.groupby("method", sort=False)]:
        yield f"| {method} | " + " | ".join(correlation(found, name) for name in LEAKAGE) + " |"


def correlation(rows: pd.DataFrame, name: str) -> str:
    """It, and of how many runs; of three or fewer there is none. An infinite leakage has a rank, too."""
    says = rows[rows[name].notna()]
    if name == "leakage_lower_nats":
        says = says[~says["leakage_lower_saturated"].eq(True)]
        if says.empty and len(rows):
            return f"saturated or absent in all {len(rows)}"
    if len(says) <= 3:
        return f"– ({len(says)})"
    return f"{spearmanr(says[name], says['mse']).statistic:.2f} ({len(says)})".replace("-", "−")


def leakage(rows: pd.DataFrame) -> Iterator[str]:
    """What z says at least and at most, beside the error that the strongest attack leaves; means over seeds."""
    yield "| method | strength | at least, nats | at most, nats | `conditional_nats` | MSE | seeds |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    strongest = rows[rows["strongest_of"].notna()].drop_duplicates(["run", "strongest_of"])
    for (method, name, strength), found in strongest.groupby(["method", "strength_name", "strength"], sort=False):
        saturated = "≥ " if found["leakage_lower_saturated"].eq(True).any() else ""
        least, most, conditional, mse = (
            found[name].mean() for name in ("leakage_lower_nats", "leakage_nats", "conditional_nats", "mse")
        )
        bound = "≤ " if found["strongest_bound"].eq(True).any() else ""
        yield (
            f"| {method} | {name} {strength:g} | {saturated}{_told(least, 1)} | {_told(most)} | {_told(conditional)} | "
            f"{bound}{_told(mse, 4)} | {len(found)} |"
        )


def _told(value: float, digits: int = 0) -> str:
    """A number of a table; a sign where it is infinite, or was not measured."""
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.{digits}f}"


def draw(rows: pd.DataFrame) -> bytes:
    """An SVG of accuracy against the strongest attack's error, strengths joined. Equal rows, equal bytes."""
    front = Comparisons(rows, points=POINTS).front()
    with look():
        figure = new_figure(7.5, 4.5)
        axes = figure.add_subplot()
        others = 0
        for method, found in front.groupby("method", sort=False):
            plain = method == PLAIN
            others += not plain
            means = found.sort_values("strength")
            style: dict[str, Any] = {
                "color": "#000000" if plain else method_colour(others - 1),
                "marker": marker(others),
            }
            style |= {"marker": marker(0), "linestyle": "--"} if plain else {}
            axes.plot(means["mse"], 100 * means["accuracy"], markersize=5, linewidth=1.4, label=str(method), **style)
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
        axes.minorticks_off()
        axes.set_xlabel("MSE of the strongest attack (more is safer)")
        axes.set_ylabel("test accuracy, %")
        axes.legend(loc="lower left")
        return finish(figure, "answer", "svg", "", "").data


def tables(rows: pd.DataFrame) -> str:
    learned = list(rows.loc[rows["converged"].notna(), "attack"].unique())
    comparisons = Comparisons(rows, points=POINTS)
    pairs = comparisons.paired()
    against = paired_table(pairs[pairs["other"] != PLAIN]).markdown().rstrip()
    parts: list[tuple[str, Iterator[str]]] = [
        ("Two methods at equal accuracy:", iter([against])),
        ("Each attacker by itself, on runs that all of them attacked: times the error under plain noise that costs the "
         "same accuracy [95 % interval] (seeds). ≤: of errors that are upper limits:",
         by_attacker(rows, ["linear", *learned])),
        *((f"How that changes with the budget of `{one}`, by its errors on held-out images:", by_budget(rows, one))
          for one in learned),
        ("What the last doubling of the budget took from the held-out error (geometric means over runs):", gains(rows)),
        ("What z says of the image at least (saturated where ≥: no more can be told with so many images) and at most; "
         "what `conditional` reads, which is relative to h(x); and the error of the strongest attack:", leakage(rows)),
        ("Spearman's rank correlation with the strongest attack's error, of the upper bound of the leakage, of the "
         "lower one where it is not saturated, and of what `conditional` reads, each over the runs that have it:",
         correlations(rows)),
    ]  # fmt: skip
    text = markdown(comparisons)
    return text + "".join(f"\n{words}\n\n" + "\n".join(lines) + "\n" for words, lines in parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sources", type=Path, nargs="+", help="folders of studies, or what --keep wrote")
    parser.add_argument("--keep", type=Path, help="CSV to write, of all rows")
    parser.add_argument("--seeds", type=int, nargs="+", help="those alone; absent: all")
    parser.add_argument("--figure", type=Path, help="SVG to write, of accuracy against error")
    options = parser.parse_args()
    read = [of_study(source) if source.is_dir() else pd.read_csv(source) for source in options.sources]
    rows = joined(read)
    if options.keep:
        rows.to_csv(options.keep, index=False, lineterminator="\n", float_format="%.6g")
        rows = pd.read_csv(options.keep)
    asked = of_seeds(rows, options.seeds) if options.seeds else rows
    if options.figure:
        options.figure.write_bytes(draw(asked))
    print(tables(asked), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
