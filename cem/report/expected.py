"""What is expected of the encoders without an attacker: beside the leakage, never among the attacks."""

import pandas as pd

from cem.report.groups import Group
from cem.report.statistics import over_seeds
from cem.report.table import Table
from cem.report.threat import ThreatModel

_OFF = 0.03  # of 1 that the slope of a sound estimate may be, beside four standard errors
_COLUMNS = {
    "lmmse": "linear error",
    "lmmse_low": "linear error, in sample",
    "dfil": "dFIL",
    "dfil_floor": "1/dFIL, unbiased only",
    "i_mmse": "I-MMSE",
    "conditional_nats": "−h(x|z) ≥, nats",
    "entropy_power": "exp(−2I/d)",
}
_MADE_OF = {"lmmse_low": "lmmse", "dfil_floor": "dfil"}  # which are not given where the latter are not
NOTES = (
    "linear error: least MSE of an estimate that is linear in z, fitted to private images and scored on test with the "
    "noise in closed form; in sample: on the images it was fitted to, below the least. It checks the attack linear, "
    "whose images are clamped to [0, 1] and which may so do better.",
    "dFIL: Fisher information about a number of the image. Its reciprocal bounds the error of unbiased attackers "
    "alone; the attacks of this page are biased, and may do better.",
    "I-MMSE: how much the upper bound on the leakage changes with the noise, over what it should; 1 for a sound "
    "estimate. It is of ẑ + ε, before any mask.",
    "−h(x|z) ≥: with h(x) added, which all runs of one data set share, a lower bound on the leakage. It ranks runs and "
    "is no amount: where it is larger, more of the image can be told. Of what is sent, masks included; it comes from a "
    "regression on learned features, fitted to private images and scored on test.",
    "exp(−2I/d): the part of an image's entropy power that is left, at least; from the upper bound on the leakage. A "
    "relative number, no error.",
)
UNSOUND = "†: more than 3 % and four standard errors from 1. Do not use the upper bound on the leakage of these runs."


def expected_table(groups: list[Group], results: pd.DataFrame, threat: ThreatModel) -> Table | None:
    """One row a group, of the channel that a threat model's attacks see; None where nothing of it is measured."""
    known = results[results["threat_model"] == threat.label]
    rows: list[tuple[str, ...]] = []
    whys: dict[str, None] = {}
    for group in groups:
        about = group.about(known)
        reasons = _reasons(about)
        if about[[name for name in _COLUMNS if name != "entropy_power"]].isna().all(axis=None) and not reasons:
            continue
        seeds = "1 seed" if len(about) == 1 else str(len(about))
        rows.append((group.label, seeds, *(_cell(about, name, reasons) for name in _COLUMNS)))
        told = [f"{_COLUMNS[name]}: {why}" for name in _COLUMNS for why in reasons.get(name, ())]
        whys |= dict.fromkeys(f"not applicable: {why}." for why in told)
    if not rows:
        return None
    unsound = any(cell.endswith("†") for row in rows for cell in row)
    notes = (*NOTES, *whys, *((UNSOUND,) if unsound else ()))
    return Table("expected", ("runs", "seeds", *_COLUMNS.values()), rows, notes, text_columns=2)


def _reasons(about: pd.DataFrame) -> dict[str, list[str]]:
    """Column → why it does not apply, to at least one of the runs."""
    said = dict.fromkeys(why for text in about["not_applicable"].fillna("") for why in text.split("; ") if why)
    found: dict[str, list[str]] = {}
    for why in said:
        name, _, text = why.partition(": ")
        found.setdefault(name, []).append(text)
    return {name: found[other] for name, other in _MADE_OF.items() if other in found} | found


def _cell(about: pd.DataFrame, name: str, reasons: dict[str, list[str]]) -> str:
    values = about[name]
    if values.isna().any():
        return "not applicable" if name in reasons else "not measured"
    unsound = name == "i_mmse" and ((values - 1).abs() > _OFF + 4 * about["i_mmse_sem"]).any()
    return over_seeds(values).text() + (" †" if unsound else "")
