"""Leakage from both sides, and whether its order of the runs is that of what the attacks rebuilt."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from cem.report.cells import lower_text
from cem.report.curves import Point, arenas, common_seeds
from cem.report.groups import Group
from cem.report.scores import Scores
from cem.report.statistics import Estimate, over_seeds
from cem.report.table import Table
from cem.report.threat import ThreatModel

BOUNDS = {"≤": "leakage_nats", "≥": "leakage_lower_nats"}  # never mixed
_MOST_ROWS = 20
MASKED = (
    "Under dropout or top-k both are of ẑ + ε, before the mask. What is sent says no more than that: the upper bound "
    "holds for it, the lower one need not."
)
OF_DEFENSE = (
    "σ of a defence's noise: its root mean square over the numbers of z, mean over seeds; channel_noise_std in "
    "results.csv."
)


@dataclass(frozen=True)
class Swap:
    """Two groups of which the one with the larger bound on its leakage lets *less* be rebuilt, both beyond chance.

    sign: of the bound. nats: of `more` and `less`. log: of the error of `more` over that of `less`, above 0.
    """

    more: str
    less: str
    sign: str
    nats: tuple[Estimate, Estimate]
    log: Estimate


@dataclass(frozen=True)
class Orders:
    """swaps: pairs that the two orders rank differently. agreeing: pairs that both rank alike, beyond chance.

    compared: pairs that were looked at. doubtful: groups that were not, since nothing can be said of their errors.
    """

    swaps: tuple[Swap, ...]
    agreeing: int
    compared: int
    doubtful: int


def compare_orders(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> Orders:
    """Each pair of groups of equal data, network and training, by each bound: paired by seed, with 95 % intervals.

    A saturated lower bound ranks nothing. Pairs of which an interval holds "no difference" are in neither count.
    """
    swaps: list[Swap] = []
    agreeing, compared, doubtful = 0, 0, set[str]()
    for arena in arenas(groups, results, threat, scores):
        curves = (*arena.methods, *([arena.plain] if arena.plain else []))
        every = [point for curve in curves for point in curve.points]
        doubtful |= {point.group.label for point in every if point.doubts}
        points = [point for point in every if not point.doubts]
        for sign in BOUNDS:
            for first, second in combinations([point for point in points if _ranks(point, sign)], 2):
                found = _swap(first, second, sign)
                if isinstance(found, Swap):
                    swaps.append(found)
                agreeing += found is True
                compared += 1
    return Orders(tuple(sorted(swaps, key=lambda swap: -swap.log.mean)), agreeing, compared, len(doubtful))


def _swap(first: Point, second: Point, sign: str) -> Swap | bool:
    """True where both orders are the same, False where nothing can be said."""
    seeds = common_seeds(first, second)
    if len(seeds) < 2:
        return False
    mine, theirs = (point.values(BOUNDS[sign], seeds) for point in (first, second))
    sides = _side(mine, theirs)
    if sides == 0:
        return False
    more, less, nats = (first, second, (mine, theirs)) if sides > 0 else (second, first, (theirs, mine))
    log = (more.errors(seeds) - less.errors(seeds)).estimate()
    if log.low > 0:
        return Swap(more.group.label, less.group.label, sign, (over_seeds(nats[0]), over_seeds(nats[1])), log)
    return log.high < 0


def _side(mine: np.ndarray, theirs: np.ndarray) -> int:
    """1 where the first are larger by the interval of the paired differences, −1 where smaller; else 0.

    Infinite bounds (σ = 0) are larger than finite ones in every seed, and equal to each other.
    """
    infinite = np.isinf(mine), np.isinf(theirs)
    if any(one.any() for one in infinite):
        sure = [one.all() and not other.any() for one, other in (infinite, infinite[::-1])]
        return int(sure[0]) - int(sure[1])
    apart = over_seeds(mine - theirs)
    return int(apart.low > 0) - int(apart.high < 0)


def _ranks(point: Point, sign: str) -> bool:
    """Whether a bound is measured in all seeds, and says something of what is sent: neither saturated nor masked."""
    says_nothing = sign == "≥" and (point.group.masked or point.rows["leakage_lower_saturated"].fillna(True).any())
    return not (says_nothing or point.rows[BOUNDS[sign]].isna().any())


def orders_table(orders: Orders) -> Table | None:
    """One row a pair whose orders differ, the largest factor first; None where there is none."""
    rows: list[tuple[str, ...]] = [
        (one.more, one.less, f"{one.sign} {one.nats[0].text()}", f"{one.sign} {one.nats[1].text()}",
         one.log.factor_text(), str(one.log.n))
        for one in orders.swaps[:_MOST_ROWS]
    ]  # fmt: skip
    if not rows:
        return None
    more = f" {len(orders.swaps) - _MOST_ROWS} more pairs are not shown." if len(orders.swaps) > _MOST_ROWS else ""
    notes = (
        "error: factor of the strongest attacks' MSE, of the first over the second, paired by seed, 95 % interval in "
        f"brackets; each pair by itself, so that by chance some are here.{more}",
    )
    header = ("larger bound", "smaller bound", "nats of the first", "nats of the second", "error, times", "seeds")
    return Table("orders", header, rows, notes, text_columns=2)


def leakage_table(groups: list[Group], results: pd.DataFrame, threat: ThreatModel) -> Table | None:
    """One row a group and σ: both bounds and the density that gave the upper one; None where nothing is measured.

    A group whose lower bound is saturated has one more row, at the first σ, 2σ, 4σ, … where it is not.
    """
    rows: list[tuple[str, ...]] = []
    seen = threat.observations
    for group in groups:
        known = results[results["threat_model"] == threat.label]
        about = group.about(known)
        about = about[about["leakage_nats"].notna()]
        if about.empty:
            continue
        rows.append(_row(group, about, _size(group, about, seen), ""))
        for std, those in about[about["leakage_lower_saturated"].fillna(False)].groupby("unsaturated_noise_std"):
            rows.append(_row(group, those, f"{std:g}", "unsaturated_"))
    if not rows:
        return None
    notes = (
        "upper: of the densities fitted to private images, the one that does best on val, scored on test; lower: from "
        "pairs of test images, at most log K. Where it is within 5 % of log K it says only that all K images are told "
        "apart (saturated), and ranks nothing; the next row then has both at a larger σ, which is not the run's.",
        *((OF_DEFENSE,) if any("a defence's" in row[1] for row in rows) else ()),
        *(("σ: of what an attacker has who sees z several times.",) if seen > 1 else ()),
        *((MASKED,) if any(group.masked for group in groups) else ()),
        *dict.fromkeys(note for group in groups for note in group.promises),
    )
    header = ("runs", "σ", "density", "seeds", "lower, nats", "upper, nats", "log K")
    return Table("leakage", header, rows, notes, text_columns=3)


def _size(group: Group, about: pd.DataFrame, seen: int) -> str:
    """σ of a group's channel in words, seen so many times."""
    own = group.first.noise_std
    of_defense = not own and np.isfinite(about["leakage_nats"]).all()
    size = f"{own:g}"
    if of_defense:
        known = about["channel_noise_std"].notna().all()
        size = f"{about['channel_noise_std'].mean():.3g}, a defence's" if known else "a defence's"
    return size + (f"/√{seen}" if seen > 1 and (own or of_defense) else "")


def _row(group: Group, about: pd.DataFrame, std: str, prefix: str) -> tuple[str, ...]:
    members = about[f"{prefix}leakage_member"].dropna()
    ceiling = about["leakage_lower_ceiling"].iloc[0]
    return (
        group.label,
        std,
        ", ".join(dict.fromkeys(members)) or "none (no noise)",
        "1 seed" if len(about) == 1 else str(len(about)),
        lower_text(about, prefix),
        over_seeds(about[f"{prefix}leakage_nats"]).text(),
        "–" if np.isnan(ceiling) else f"{ceiling:.2f}",
    )
