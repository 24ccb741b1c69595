"""A table to be put into a paper: chosen columns, mean ± half interval, and in bold what no other row surely beats."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from cem.report.cells import seeds_text
from cem.report.groups import Group
from cem.report.scores import Scores
from cem.report.statistics import Estimate, over_seeds
from cem.report.table import PACKAGE, escape_latex
from cem.report.threat import ThreatModel

Read = Callable[[pd.DataFrame, pd.DataFrame, Scores], Estimate]  # what a group is, its headline, scores → a number


@dataclass(frozen=True)
class Column:
    """higher: whether a defender wants more of it; None: no row is the better one, as all numbers are limits.

    scored: of an attack, so that it may be a limit only.
    """

    title: str
    higher: bool | None
    scored: bool
    read: Read


def _score(name: str, scale: float = 1.0) -> Read:
    return lambda about, infer, scores: scores.estimate(infer, name, scale)


def _leakage(name: str) -> Read:
    return lambda about, infer, scores: over_seeds(infer[name].astype(float))


def _lower(about: pd.DataFrame, infer: pd.DataFrame, scores: Scores) -> Estimate:
    """None where a mask hides part of what it is of, or where it says no more than log K."""
    if infer["leakage_masked"].any() or infer["leakage_lower_saturated"].fillna(True).any():
        return over_seeds([])
    return over_seeds(infer["leakage_lower_nats"].astype(float))


# Names that the setting report.columns chooses from.
COLUMNS = {
    "accuracy": Column("accuracy, %", True, False, lambda about, infer, scores: over_seeds(100 * about["accuracy"])),
    "mse": Column("MSE", True, True, _score("mse")),
    "psnr_db": Column("PSNR, dB", False, True, _score("psnr_db")),
    "ssim": Column("SSIM", False, True, _score("ssim")),
    "recognised": Column("recognised, %", False, True, _score("recognised", 100.0)),
    "embedding_similarity": Column("embedding similarity", False, True, _score("embedding_similarity")),
    "leakage_nats": Column("leakage ≤, nats", None, False, _leakage("leakage_nats")),
    "leakage_lower_nats": Column("leakage ≥, nats", None, False, _lower),
    "train_seconds": Column(
        "training, s", False, False, lambda about, infer, scores: over_seeds(about["train_seconds"])
    ),
}


def paper_table(
    groups: Sequence[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores, columns: Sequence[str]
) -> str:
    """A `tabular` of one threat model: a row per group, the references apart, below the others."""
    chosen = [COLUMNS[name] for name in columns]
    told = [_row(group, results, threat, scores, chosen) for group in groups]
    bold = [_best([row[place] for row in told], groups, column) for place, column in enumerate(chosen)]
    lines = [
        " & ".join(
            [
                escape_latex(group.label),
                escape_latex(seeds_text(group)),
                *(_cell(*cell, bold[at][line]) for at, cell in enumerate(row)),
            ]
        )
        + r" \\"
        for line, (group, row) in enumerate(zip(groups, told, strict=True))
    ]
    asked = [line for group, line in zip(groups, lines, strict=True) if not group.reference]
    apart = [line for group, line in zip(groups, lines, strict=True) if group.reference]
    header = " & ".join(["", "seeds", *(escape_latex(column.title) for column in chosen)]) + r" \\"
    notes = [
        PACKAGE,
        f"% Attackers: {threat.label}; the strongest attack of each row, scored on test images.",
        "% +-: half the 95 % interval. Bold: the best row for the defender, and those whose interval overlaps its own;",
        "% none in a column where a row has one seed or all would be bold, and no row whose number is a limit (<=, >=)",
        "% or whose network is given, as its intervals say nothing of other trainings. References: last.",
        "% A lower bound on leakage is left out where it is saturated, or where a mask hides part of what it is of.",
    ]
    body = [r"\toprule", header, r"\midrule", *asked, *([r"\midrule", *apart] if apart else []), r"\bottomrule"]
    return "\n".join([*notes, rf"\begin{{tabular}}{{lr{'r' * len(chosen)}}}", *body, r"\end{tabular}", ""])


Cell = tuple[Estimate, str]  # a number, and the sign before it where it is a limit


def _row(
    group: Group, results: pd.DataFrame, threat: ThreatModel, scores: Scores, columns: Sequence[Column]
) -> list[Cell]:
    about, infer = group.about(results), group.headline(results, threat)
    cells: list[Cell] = []
    for column in columns:
        limit = column.scored and bool(infer["strongest_bound"].any())
        cells.append((column.read(about, infer, scores), ("≤ " if column.higher else "≥ ") if limit else ""))
    return cells


def _best(cells: Sequence[Cell], groups: Sequence[Group], column: Column) -> list[bool]:
    """Which rows are the best, as far as the intervals tell."""
    judged = [
        estimate if not (group.reference or group.one_network or sign or math.isnan(estimate.mean)) else None
        for (estimate, sign), group in zip(cells, groups, strict=True)
    ]
    there = [estimate for estimate in judged if estimate is not None]
    if column.higher is None or len(there) < 2 or any(math.isnan(estimate.half) for estimate in there):
        return [False] * len(cells)
    best = max(there, key=lambda estimate: estimate.mean if column.higher else -estimate.mean)
    found = [one is not None and one.low <= best.high and best.low <= one.high for one in judged]
    return found if sum(found) < len(there) else [False] * len(cells)  # of a column without differences none is


def _cell(estimate: Estimate, sign: str, bold: bool) -> str:
    if math.isnan(estimate.mean):
        return "--"
    mean, apart, half = estimate.text().partition("\N{NO-BREAK SPACE}±")
    shown = escape_latex(mean)
    return escape_latex(sign) + (rf"\textbf{{{shown}}}" if bold else shown) + escape_latex(apart + half)
