"""The comparisons at equal accuracy as tables of text: for the page, for LaTeX, and as Markdown for a page of docs."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd

from cem.report.equal_accuracy import Comparisons
from cem.report.methods import PLAIN
from cem.report.series import PLACE
from cem.report.statistics import LEVEL, Estimate, p_text
from cem.report.table import Table

Row = Any  # a named tuple of pandas
MOST_PAIRS = 60  # that a page shows

RATIO = (
    "times noise: the error of the strongest attack over that under plain noise that costs the same accuracy, paired "
    "by training seed (mean of logarithms); 95 % interval in brackets, of each row by itself. p: after Holm, for all "
    "{family} under one threat model. In words: a difference is told where this p is below 0.05."
)
BELOW = (
    "Accuracy: that of the undefended network of the same seed, less so many percent points. Errors are interpolated "
    "along each method's strength (isotonic regression, then a monotone cubic), seed by seed; not reached: in at least "
    "one seed the curve does not span that accuracy. Error: geometric mean over seeds."
)
LIMIT = (
    "≤: at least one error that counts here, for words and factors also of what it is held against, is only an upper "
    "limit: a stronger attack may change what is said."
)
ELSEWHERE = (
    "another network, another training: held against plain noise on the network of the other rows, and at the accuracy "
    "that this has undefended. Data and attacks are the same."
)
FRONT = (
    "front: of the means, no other row has more accuracy at no less error, or more error at no less accuracy. A row "
    "whose error is an upper limit puts none off it, and may itself be on it or not (not known). Points lost: of "
    "accuracy, against the undefended network of the same seed. times noise: at the accuracy of the row itself. ±: "
    "over seeds alone, for other trainings on these test images; tables of attacks have it for other images, too."
)
PAIR = (
    "error, times: paired by training seed (mean of logarithms), 95 % interval in brackets, of each row by itself. p: "
    "after Holm, for all pairs of two methods at that accuracy under one threat model."
)
VOLUME = (
    "Hypervolume: the part of a rectangle that has an accuracy and an error no better than one of the method's "
    "strengths. It reaches from the reference point (accuracy of always naming the most frequent class, error 0) to "
    "(accuracy 1, error of answering with the mean image). It grows with the number of strengths that were tried."
)


def equal_table(frame: pd.DataFrame) -> Table:
    """Of rows of `Comparisons.equal_accuracy`, all of one threat model."""
    header = ("points below", "method", "in words", "accuracy, %", "error", "times noise", "p", "seeds")
    rows: list[tuple[str, ...]] = [
        (f"{row.points_below:g}", f"{_method(row)}{_strengths(row)}", _words(row), _percent(row), _error(row),
         _factor(row, "factor_to_noise"), p_text(row.p_holm), _seeds(row))
        for row in _each(frame)
    ]  # fmt: skip
    return Table(
        "equal_accuracy",
        header,
        rows,
        (BELOW, RATIO.format(family="methods at that accuracy"), *_notes(rows)),
        text_columns=3,
    )


def front_table(frame: pd.DataFrame) -> Table:
    """Of rows of `Comparisons.front`, all of one threat model."""
    header = (
        "method", "strength", "strongest attack", "in words", "front", "accuracy, %", "points lost", "MSE, Infer",
        "times noise", "p", "seeds",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [
        (_method(row), f"{row.strength_name} {row.strength:g}" if row.strength_name else "–", row.attack, _words(row),
         "" if row.on_front == "no" else row.on_front, _percent(row), _mean(row, "points_lost", 2),
         ("≤ " if row.own_limit else "") + _mean(row, "mse"), _factor(row, "factor_to_noise"), p_text(row.p_holm),
         _seeds(row))
        for row in _each(frame)
    ]  # fmt: skip
    return Table(
        "front", header, rows, (FRONT, RATIO.format(family="methods and strengths"), *_notes(rows)), text_columns=5
    )


def volume_table(frame: pd.DataFrame) -> Table:
    """Of rows of `Comparisons.front`, all of one threat model: one per method."""
    header = ("method", "strengths", "hypervolume", "above plain noise", "seeds")
    rows: list[tuple[str, ...]] = []
    for _, members in frame.groupby(["arena", "method"], sort=False):
        row: Row = next(_each(members))
        sign = "≤ " if members["own_limit"].any() else ""
        above = _mean(row, "hypervolume_above_noise") + (" (≤)" if sign else "")
        seeds = _counts(row.hypervolume_seeds, row.hypervolume_above_noise_seeds)
        rows.append((_method(row), str(len(members)), sign + _mean(row, "hypervolume"), above, seeds))
    return Table("hypervolume", header, rows, (VOLUME, *_notes(rows)))


def paired_table(frame: pd.DataFrame) -> Table:
    """Of rows of `Comparisons.paired`, all of one threat model; of two methods, as noise is in another table."""
    header = ("points below", "method", "held against", "can be said", "error, times", "p", "seeds")
    rows: list[tuple[str, ...]] = [
        (f"{row.points_below:g}", _method(row), row.other, _said(row), _factor(row, "factor"), p_text(row.p_holm),
         str(row.factor_seeds))
        for row in _each(frame)
    ]  # fmt: skip
    return Table("paired", header, rows, (BELOW, PAIR, *_notes(rows)), text_columns=4)


def equal_tables(frames: dict[str, pd.DataFrame], threat: str) -> dict[str, Table]:
    """What a page shows of one threat model, by name; of very many pairs those told apart best."""
    mine = {name: frame[frame["threat_model"] == threat] for name, frame in frames.items() if not frame.empty}
    methods = mine.get("paired")
    if methods is not None:
        methods = methods[methods["other"] != PLAIN]
    found = []
    if "equal_accuracy" in mine:
        found += [equal_table(mine["equal_accuracy"]), front_table(mine["front"]), volume_table(mine["front"])]
    if methods is not None:
        found.append(_fewer(paired_table(methods), methods))
    return {table.name: table for table in found if table.rows}


def _fewer(table: Table, frame: pd.DataFrame) -> Table:
    """Of many pairs those of the smallest p, with a note of where all are."""
    if len(table.rows) <= MOST_PAIRS:
        return table
    order = frame["p_holm"].reset_index(drop=True).sort_values(kind="stable", na_position="last").index
    rows = [table.rows[place] for place in sorted(order[:MOST_PAIRS])]
    note = f"{MOST_PAIRS} of {len(table.rows)} pairs, those of the smallest p; all are in paired.csv beside this table."
    return replace(table, rows=rows, notes=(note, *table.notes))


def markdown(comparisons: Comparisons) -> str:
    """What a page of docs shows: at equal accuracy, then every method and strength; for each threat model."""
    equal, front, key = comparisons.equal_accuracy(), comparisons.front(), list(PLACE)
    if equal.empty:
        return "No attack counts on any run, so that nothing is compared.\n"
    told = []
    for (dataset, arena, _, threat), rows in equal.groupby(key, sort=False):
        mine = front.merge(rows[key].drop_duplicates(), on=key)
        where = f"{dataset}, {arena}" if arena else dataset
        about = f"The attacker: {threat}. Data: {where}.\n"
        told += [about, "At equal accuracy:\n", equal_table(rows).markdown(), "Every method and strength:\n"]
        told += [front_table(mine).markdown(), "All strengths of a method together:\n", volume_table(mine).markdown()]
    return "\n".join(told)


def _each(frame: pd.DataFrame) -> Iterator[Row]:
    """Its rows, by the names of the columns."""
    return iter(frame.itertuples())


def _method(row: Row) -> str:
    """Its name, after what tells its arena from others of the study."""
    return f"{row.arena}: {row.method}" if row.arena else str(row.method)


def _strengths(row: Row) -> str:
    return f" ({row.strength_name} {row.strengths})" if row.strength_name else ""


def _said(row: Row) -> str:
    if row.doubt:
        return f"no: {row.doubt}"
    return ("yes" if row.p_holm <= 1 - LEVEL else "no: may be 1") + (" (≤)" if row.limit else "")


def _seeds(row: Row) -> str:
    return _counts(row.seeds, row.factor_to_noise_seeds)


def _counts(seeds: int, to_noise: int) -> str:
    """How many seeds; in brackets of how many what is held against plain noise is, where these are others."""
    return (str(seeds) if seeds else "–") + (f" ({to_noise})" if to_noise not in (0, seeds) else "")


def _words(row: Row) -> str:
    return f"{row.verdict} (≤)" if row.limit else str(row.verdict)


def _percent(row: Row) -> str:
    return Estimate(100 * row.accuracy, 100 * (row.accuracy_high - row.accuracy), row.seeds).text(4)


def _mean(row: Row, name: str, digits: int = 3) -> str:
    mean = getattr(row, name)
    return Estimate(mean, getattr(row, f"{name}_high") - mean, row.seeds).text(digits)


def _error(row: Row) -> str:
    if math.isnan(row.error):
        return "–"
    interval = "" if math.isnan(row.error_low) else f" [{row.error_low:#.3g}, {row.error_high:#.3g}]"
    return f"{'≤ ' if row.own_limit else ''}{row.error:#.3g}{interval}"


def _factor(row: Row, name: str) -> str:
    mean, high = getattr(row, name), getattr(row, f"{name}_high")
    if math.isnan(mean):
        return "–"
    log = math.log(mean)
    return Estimate(log, math.log(high) - log, getattr(row, f"{name}_seeds")).factor_text()


def _notes(rows: list[tuple[str, ...]]) -> list[str]:
    text = "\n".join(cell for row in rows for cell in row)
    return [note for mark, note in {"≤": LIMIT, "another ": ELSEWHERE}.items() if mark in text]
