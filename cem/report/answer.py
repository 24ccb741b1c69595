"""The answer in words, at the top of the page: what can be said at equal accuracy, what cannot, and what is left."""

import math
from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from cem.report.compare import Comparison, compare, told
from cem.report.curves import Arena, Doubt, arenas
from cem.report.groups import Group
from cem.report.methods import PLAIN
from cem.report.scores import Scores
from cem.report.statistics import near_chance, over_seeds, p_text
from cem.report.threat import ThreatModel

_MOST = 8  # methods whose costs are told at the top


@dataclass(frozen=True)
class Unsaid:
    """Why nothing can be said of two curves: each reason with the runs that it is about."""

    about: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What was found under one threat model. verdicts: sentences. left: what protection is left, one sentence.

    costs: what each method takes from the task and adds to the training; empty where that is not known.
    """

    threat: ThreatModel
    verdicts: tuple[str, ...]
    unsaid: tuple[Unsaid, ...]
    left: str
    costs: str
    comparisons: tuple[Comparison, ...]
    said: bool


def answer(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> Answer:
    """Of one threat model: each method held against plain noise, and against the other methods."""
    compared = arenas(groups, results, threat, scores)
    found = _comparisons(compared)
    said = [one for one in found if not one.why]
    reasons = [Unsaid(f"{one.method} against {one.other}", _merged(one.why)) for one in found if one.why]
    verdicts = [_sentence(one) for one in said] or [_nothing(found)]
    left = _left(groups, results, threat, scores)
    interval = tuple(one for one in found if one.log.n)
    return Answer(threat, tuple(verdicts), tuple(reasons), left, _costs(compared), interval, bool(said))


def attack_names(names: pd.Series) -> str:
    """The attacks named, each with its number of seeds where they differ."""
    counts = Counter(names)
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{name} ({count})" for name, count in counts.items())


def _comparisons(found: list[Arena]) -> list[Comparison]:
    """Those with plain noise, one family for Holm; and those of two methods, another one."""
    with_noise: list[Comparison] = []
    with_others: list[Comparison] = []
    for arena in found:
        for method in arena.methods:
            if arena.plain is None:
                why = ("there is no run with noise alone to hold it against (surrogates: {kind: none})", method.label)
                with_noise.append(Comparison(method.label, "plain noise", why=(why,)))
            else:
                with_noise += compare(method, arena.plain)
        for first, second in combinations(arena.methods, 2):
            with_others += compare(first, second)
    return told(with_noise) + [one for one in told(with_others) if not one.why]  # why not is told beside plain noise


def _merged(doubts: tuple[Doubt, ...]) -> tuple[str, ...]:
    """Each reason once, with all that it is about."""
    runs: dict[str, list[str]] = {}
    for why, whom in dict.fromkeys(doubts):
        runs.setdefault(why, []).append(whom)
    return tuple(f"{why}: {', '.join(whom)}" for why, whom in runs.items())


def _sentence(one: Comparison) -> str:
    less = "less" if one.raises else "more"
    return (
        f"{one.method}: {less} is rebuilt than under {one.other}. The strongest attack's error is "
        f"{one.log.factor_text()} times as large ({one.log.n} seeds, 95 % interval in brackets; p {p_text(one.p)}), at "
        f"a test accuracy of {one.accuracy.percent_text()} %; {one.how}."
    )


def _nothing(found: list[Comparison]) -> str:
    if not found:
        return "Nothing is compared: the study has no method beside plain noise."
    return "Nothing can be said about what these methods change."


def _costs(found: list[Arena]) -> str:
    """Of each method, the range over its strengths, of means over seeds."""
    told = []
    for arena in found:
        noise = [point.rows["train_seconds"].mean() for point in arena.plain.points] if arena.plain else []
        noise = [seconds for seconds in noise if seconds > 0]  # not of a network that is given, or without an attack
        for curve in (*arena.methods, *([arena.plain] if arena.plain else [])):
            trained = [one.rows for one in curve.points if not (one.group.reference or one.group.one_network)]
            known = [rows for rows in trained if (rows["reference_accuracy"] - rows["accuracy"]).notna().any()]
            if not known:
                continue
            lost = [100 * (rows["reference_accuracy"] - rows["accuracy"]).mean() for rows in known]
            name = ": ".join(filter(None, (curve.setting, PLAIN))) if curve is arena.plain else curve.name
            text = f"{name}: {_range(lost, '.1f')} points"
            if curve is not arena.plain and noise:
                times = [rows["train_seconds"].mean() / (sum(noise) / len(noise)) for rows in known]
                text += f", {_range(times, '.1f')} times as long in training as under noise alone"
            told.append(text)
    against = "points of accuracy: against the undefended network of the same seed; means over seeds"
    more = f"; {len(told) - _MOST} more methods are in the tables" if len(told) > _MOST else ""
    return f"What it costs ({against}): {'; '.join(told[:_MOST])}{more}." if told else ""


def _range(values: list[float], form: str) -> str:
    """From the least to the most, once where they are written alike."""
    ends = (format(value, form).replace("-", "\N{MINUS SIGN}") for value in (min(values), max(values)))
    return " to ".join(dict.fromkeys(ends))


def _left(groups: list[Group], results: pd.DataFrame, threat: ThreatModel, scores: Scores) -> str:
    """Of the runs whose error is the largest part of the mean image's; numbers come before upper limits."""
    found: list[tuple[bool, float, Group, pd.DataFrame]] = []
    for group in groups:
        rows = group.headline(results, threat)
        part = rows["mse_ratio_to_mean_image"].mean()
        if group.reference or math.isnan(part) or any(near_chance(row) for _, row in rows.iterrows()):
            continue
        found.append((not rows["strongest_bound"].any(), float(part), group, rows))
    if not found:
        return "What protection is left is not known: no attack counts on any run that does its task."
    sure, _, best, rows = max(found, key=lambda one: one[:2])
    if not sure:
        where = "where the upper limit of the error is largest"
    elif all(one[0] for one in found):
        where = "where the error is largest"
    else:
        where = "where the error is largest among those that are no upper limits"
    at_least = "" if sure else "at least "
    told = []

    def percent(column: str) -> str:
        """With an interval where one is known: not of a limit, nor of one given network, which leaves out training."""
        if sure and not best.one_network:
            return f"{scores.estimate(rows, column, 100.0).text(4)} %"
        return f"{100 * rows[column].mean():.1f} %"

    if rows[["recognised", "recognised_original"]].notna().all(axis=None):
        told.append(
            f"that a classifier which had no part in the run recognises in {at_least}"
            f"{percent('recognised')} (of the images themselves "
            f"{100 * rows['recognised_original'].mean():.1f} %)"
        )
    if rows["rank1"].notna().all():
        told.append(f"that are nearer to their own image than to 99 others in {at_least}{percent('rank1')}")
    ratio = over_seeds(rows["mse_ratio_to_mean_image"])
    # Of one network that is given no interval is known: its seeds leave out training.
    error = ratio.text() if sure and not best.one_network else f"{'' if sure else 'at most '}{ratio.mean:.3g}"
    told.append(f"whose error is {error} times that of answering with the mean image, which needs no z")
    known = rows["accuracy"].notna().all()
    accuracy = over_seeds(rows["accuracy"])
    shown = f"{100 * accuracy.mean:.1f}" if best.one_network else accuracy.percent_text()
    task = f"test accuracy {shown} %" if known else "accuracy not known"
    return (
        f"What protection is left: {where} ({best.label}; {task}), the strongest attack "
        f"({attack_names(rows['attack'])}) gives reconstructions "
        f"{', and '.join(filter(None, [', '.join(told[:-1]), told[-1]]))} ({seeds(len(rows))}"
        f"{' of one network, which is given' if best.one_network else ''})."
    )


def seeds(count: int) -> str:
    """`1 seed`, `3 seeds`."""
    return "1 seed" if count == 1 else f"{count} seeds"
