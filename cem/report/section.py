"""What the page shows of one threat model."""

from dataclasses import dataclass, replace

import pandas as pd

from cem.planning.plan import Plan
from cem.report.answer import Answer, answer
from cem.report.charts import accuracy_against_error
from cem.report.equal_tables import equal_tables
from cem.report.expected import expected_table
from cem.report.floor import floor_picture
from cem.report.front_drawing import Front, front
from cem.report.groups import Group
from cem.report.images import Gallery, galleries
from cem.report.leakage import Orders, compare_orders, leakage_table, orders_table
from cem.report.pictures import Picture
from cem.report.scores import Scores
from cem.report.table import Table
from cem.report.tables import comparisons_table, further_metrics_table, summary_table
from cem.report.threat import ThreatModel


@dataclass(frozen=True)
class Section:
    """The answer, tables and figures of one threat model."""

    answer: Answer
    summary: Table
    further: Table | None  # metrics that the summary has no column for
    comparisons: Table
    leakage: Table | None  # where it is measured
    orders: Orders
    swaps: Table | None
    expected: Table | None  # where it is measured
    floor: Picture | None  # where a leakage is finite
    front: Front | None  # where an attack counts
    tradeoff: Picture  # the same for papers, as a file
    at_reference: dict[str, Table]  # at equal accuracy below the undefended network, and the front: by name
    galleries: list[Gallery]


def make_section(
    plan: Plan,
    groups: list[Group],
    shown: list[Group],
    results: pd.DataFrame,
    threat: ThreatModel,
    scores: Scores,
    images: dict[str, tuple[float, int]],
    frames: dict[str, pd.DataFrame],
    number: int,
) -> Section:
    """number: of the threat model, from 1; images: of each data set, the entropy and the number of test images."""
    suffix = "" if number == 1 else f"_{number}"  # of the figures' names
    found, orders = answer(groups, results, threat, scores), compare_orders(groups, results, threat, scores)
    return Section(
        found,
        summary_table(plan, groups, results, threat, scores),
        further_metrics_table(plan, groups, results, threat, scores),
        comparisons_table(found),
        leakage_table(groups, results, threat),
        orders,
        orders_table(orders),
        expected_table(groups, results, threat),
        floor_picture(groups, shown, results, threat, scores, images, f"floor{suffix}"),
        front(groups, results, threat, scores),
        accuracy_against_error(groups, shown, results, threat, scores, f"accuracy_against_error{suffix}"),
        equal_tables(frames, threat.label),
        galleries(plan, shown, results, threat, suffix),
    )


def numbered_tables(sections: list[Section]) -> list[Table]:
    """The tables of each threat model, under names that differ."""
    return [
        replace(table, name=table.name if number == 1 else f"{table.name}_{number}")
        for number, section in enumerate(sections, 1)
        for table in (
            section.summary,
            section.further,
            section.comparisons,
            *section.at_reference.values(),
            section.leakage,
            section.swaps,
            section.expected,
        )
        if table is not None and table.rows
    ]
