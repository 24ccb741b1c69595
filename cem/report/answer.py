"""The answer in words, computed from the numbers: what each surrogate changes against the same runs without one."""

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from cem.report.groups import Group, Spread

# What is known of the factor of two errors, by whether that before and that after are upper limits.
LIMITS = {(False, False): "", (False, True): "at most ", (True, False): "at least ", (True, True): "a measured "}


@dataclass(frozen=True)
class Change:
    """What one group changes: the factor of the MSE under the strongest attack, and its price in words."""

    label: str
    text: str
    factor: float = math.nan
    limit: str = ""
    price: str = ""


@dataclass(frozen=True)
class Answer:
    """What was found for one setting: the runs without a surrogate, each surrogate, and the sum of it."""

    setting: str
    lead: str
    changes: tuple[Change, ...]
    verdict: str = ""


def answer(groups: list[Group], results: pd.DataFrame) -> list[Answer]:
    """One answer a group without a surrogate, and one for the groups that have no such counterpart."""
    answers, alone = [], []
    groups = [group for group in groups if not group.reference]
    for group in groups:
        if not group.first.surrogate.adds_term:
            others = [other for other in groups if other is not group and other.without_surrogate(groups) is group]
            changes = tuple(_change(group, other, results) for other in others)
            answers.append(Answer(group.label, _lead(group, results), changes, _verdict(changes)))
        elif group.without_surrogate(groups) is None:
            alone.append(Change(group.label, _numbers(group.headline(results))))
    if alone:
        lead = "These runs have no counterpart with surrogate none in the study, so no change can be given."
        answers.append(Answer("no reference", lead, tuple(alone)))
    return answers


def seeds(count: int) -> str:
    """`1 seed`, `3 seeds`."""
    return "1 seed" if count == 1 else f"{count} seeds"


def attack_names(names: pd.Series) -> str:
    """The attacks named, each with its number of seeds where they differ."""
    counts = Counter(names)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _lead(plain: Group, results: pd.DataFrame) -> str:
    rows = plain.headline(results)
    sentence = f"Without a surrogate, {_numbers(rows)}"
    ratio = Spread.of(rows["mse_ratio_to_mean_image"])
    if ratio.n:
        sentence += f" The error is {ratio.text()} times that of answering with the mean image, which needs no z."
    return sentence


def _verdict(changes: tuple[Change, ...]) -> str:
    compared = [change for change in changes if not math.isnan(change.factor)]
    if not compared:
        return ""
    best = max(compared, key=lambda change: change.factor)
    if best.factor <= 1:
        return "No surrogate raised the error of the strongest attack."
    return (
        f"The error of the strongest attack rose most under {best.label}: to {best.limit}{best.factor:.2f} times that "
        f"without a surrogate, at {best.price}."
    )


def _numbers(rows: pd.DataFrame) -> str:
    if rows.empty:
        return "every attack failed (see the table of attacks): nothing is known about the protection of these runs."
    mse, psnr, ssim = (Spread.of(rows[name]) for name in ("mse", "psnr_db", "ssim"))
    accuracy, leakage = Spread.of(100 * rows["accuracy"]), Spread.of(rows["leakage_nats"])
    limit = "at most " if rows["strongest_bound"].any() else ""
    return (
        f"the strongest attack ({attack_names(rows['attack'])}) rebuilds test images to an MSE of {limit}{mse.text()} "
        f"(PSNR {psnr.text()} dB, SSIM {ssim.text()}) at a test accuracy of {accuracy.text(4)} %; the leakage bound "
        f"is {leakage.text()} nats ({seeds(len(rows))})."
    )


def _change(plain: Group, other: Group, results: pd.DataFrame) -> Change:
    """Differences are taken seed by seed, so what a seed shares with itself does not count as spread."""
    before, after = plain.headline(results), other.headline(results)
    common = before.index.intersection(after.index)
    if common.empty:
        reason = "shares no seed with the runs without a surrogate"
        if before.empty or after.empty:
            reason = f"every attack failed on {'these runs' if after.empty else 'the runs without a surrogate'}"
        return Change(other.label, f"{reason}, so no change is given.")
    before, after = before.loc[common], after.loc[common]
    if (before["images"] != after["images"]).any():
        on = [f"{attack_names(rows['attack'])} on {max(rows['images'])}" for rows in (before, after)]
        text = f"the strongest attacks are scored on different images ({on[0]} → {on[1]}), so no change is given."
        return Change(other.label, text)
    error, accuracy = after["mse"] - before["mse"], 100 * (after["accuracy"] - before["accuracy"])
    factor, points = Spread.of(after["mse"] / before["mse"]), Spread.of(accuracy).text(2, signed=True)
    then, now = ([Spread.of(rows[name]).text() for name in ("mse", "leakage_nats")] for rows in (before, after))
    bounds = [bool(rows["strongest_bound"].any()) for rows in (before, after)]
    then[0], now[0] = (f"≤ {mse}" if bound else mse for mse, bound in zip((then[0], now[0]), bounds, strict=True))
    limit = LIMITS[bounds[0], bounds[1]]
    text = (
        f"MSE under the strongest attack ({attack_names(after['attack'])}) {then[0]} → {now[0]}, "
        f"{limit}{factor.text()} times; accuracy {points} percentage points; leakage bound {then[1]} → "
        f"{now[1]} nats "
    )
    if len(common) == 1:
        text += "(1 seed: an example, no spread can be given)."
    else:
        text += f"({seeds(len(common))}; the error rose in {int((error > 0).sum())} of them)."
    price = f"{points} percentage points of test accuracy ({seeds(len(common))})"
    return Change(other.label, text, factor.mean, limit, price)
