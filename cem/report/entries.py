"""What `cem compare` holds against each other: runs of one study that differ only in their seed, or one run."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from cem import CemError
from cem.config import Run
from cem.config.base import TAGS
from cem.report.rows import AGAIN, read_csv
from cem.report.statistics import Estimate, over_seeds

# Column of runs.csv → title and scale of the metrics that are compared.
SHOWN = {
    "accuracy": ("accuracy, %", 100.0),
    "infer_mse": ("MSE, Infer", 1.0),
    "infer_psnr_db": ("PSNR, dB", 1.0),
    "infer_ssim": ("SSIM", 1.0),
    "infer_recognised": ("recognised, %", 100.0),
    "leakage_nats": ("leakage ≤, nats", 1.0),
    "leakage_lower_nats": ("leakage ≥, nats", 1.0),
    "lmmse": ("LMMSE", 1.0),
    "train_seconds": ("training, s", 1.0),
    "train_max_rss_mb": ("memory, MB", 1.0),
}
Row = dict[str, str]
_TAGS = (*TAGS, "arch")  # settings that say which member of a family is used


class CompareError(CemError):
    """What cannot be compared."""


@dataclass(frozen=True)
class Entry:
    """Runs of one study that differ only in their seed, under one threat model; or one run."""

    study: str
    runs: tuple[str, ...]
    threat: str
    settings: Row
    strongest: str
    limit: bool  # whether the strongest attack's error is only an upper limit
    lower: str  # why the lower bound on leakage says nothing here; empty where it does
    metrics: dict[str, Estimate]

    def text(self, metric: str) -> str:
        """A metric in a cell."""
        if metric == "leakage_lower_nats" and self.lower:
            return self.lower
        scored = metric.startswith("infer_")
        sign = ("≤ " if metric == "infer_mse" else "≥ ") if self.limit and scored else ""
        return sign + self.metrics[metric].text()


def read_rows(study: Path) -> list[Row]:
    """The rows of runs.csv in the folder of a study's results.

    Raises CompareError where there are none, or others than those of runs, StoreError where it is no table.
    """
    path = study / "runs.csv"
    try:
        rows = read_csv(path)
    except FileNotFoundError:
        raise CompareError(
            f"{path}: expected the results of {study.name}, found none. Run the study, or make them of what is "
            "finished: cem report FILE"
        ) from None
    if not rows or not {"run", "threat_model", "seed", *SHOWN} <= rows[0].keys():
        raise CompareError(f"{path}: expected rows of runs with their scores, found others. {AGAIN}")
    try:
        for row, name in product(rows, SHOWN):
            _value(row[name])
    except ValueError:
        raise CompareError(f"{path}: expected numbers under {name}, found {row[name]!r}. {AGAIN}") from None
    return rows


def make_entries(rows: list[tuple[Path, Row]], apart: bool) -> list[Entry]:
    """By threat model, and runs that differ only in their seed together; with `apart` each run by itself."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for study, row in rows:
        settings = {name: value for name, value in _settings(row).items() if apart or name != "seed"}
        groups.setdefault((study.name, row["threat_model"], repr(settings)), []).append(row)
    return [_entry(study, threat, members) for (study, threat, _), members in groups.items()]


def _entry(study: str, threat: str, rows: list[Row]) -> Entry:
    settings = _settings(rows[0])
    if len(rows) > 1:
        del settings["seed"]
    metrics = {name: over_seeds(scale * _value(row[name]) for row in rows) for name, (_, scale) in SHOWN.items()}
    strongest = ", ".join(sorted({row["strongest_attack"] for row in rows} - {""})) or "attack failed"
    limit = any(row.get("infer_bound") == "True" for row in rows)
    lower = "behind a mask" if any(row.get("leakage_masked") == "True" for row in rows) else ""
    lower = lower or ("saturated" if any(row.get("leakage_lower_saturated") == "True" for row in rows) else "")
    return Entry(study, tuple(row["run"] for row in rows), threat, settings, strongest, limit, lower, metrics)


def _settings(row: Row) -> Row:
    """What a run was made with, by dotted path; pandas wrote whole numbers as 3.0 where others lack the setting."""
    return {
        name: re.sub(r"^(-?\d+)\.0$", r"\1", value)
        for name, value in row.items()
        if name.partition(".")[0] in Run.model_fields
    }


def _value(text: str) -> float:
    return float(text) if text else math.nan


def differing(settings: Sequence[Row]) -> list[str]:
    """Names of those that are not the same in all that have them: members of a family have others each.

    An empty value is that of a setting which may be absent, as long as the members that it is of are the same.
    """
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if _differs(name, settings)]


def _differs(name: str, settings: Sequence[Row]) -> bool:
    families = name.split(".")[:-1]
    above = [".".join(families[: depth + 1]) for depth in range(len(families))]
    values: dict[tuple[str, ...], set[str]] = {}
    for one in settings:
        member = tuple(one.get(f"{family}.{tag}", "") for family in above for tag in _TAGS)
        values.setdefault(member, set()).add(one.get(name, ""))
    given = set().union(*values.values()) - {""}
    return len(given) > 1 or any(len(found) > 1 for found in values.values())
