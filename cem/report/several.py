"""Several studies, or runs, side by side: the settings and the metrics that differ. What `cem compare` shows."""

import base64
import csv
import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from cem import CemError
from cem.config import Run, load_study
from cem.report.cells import ONE_SEED
from cem.report.pictures import colour, look, marker, new_figure
from cem.report.statistics import Estimate, over_seeds
from cem.report.table import Table
from cem.storage.export import find_run
from cem.storage.files import write_text

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
TITLES = [title for title, _ in SHOWN.values()]
STRONGEST = "strongest attack"
CAPTION = (
    "Error of the strongest attack against accuracy; up and right is better. Bars: 95 % over seeds. Hollow: an upper "
    "limit."
)
SPREAD = "±: half the 95 % interval over training seeds (Student's t), without that over test images: see each report."
_MOST_SIDE_BY_SIDE = 3  # more are rows, not columns
Row = dict[str, str]


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


@dataclass(frozen=True)
class Comparison:
    """tables: by threat model. page: where it is written unless told otherwise. studies: name → its folder."""

    title: str
    entries: list[Entry]
    tables: list[Table]
    chart: str  # as an address of a picture; empty where there are too few points
    notes: list[str]
    page: Path
    studies: dict[str, Path]

    def as_json(self) -> dict[str, Any]:
        """For programs: of each entry what differs, and all metrics; null for what is not known or not finite."""
        differing = _differing([entry.settings for entry in self.entries])
        return {
            "entries": [
                {
                    "study": entry.study,
                    "runs": list(entry.runs),
                    "threat_model": entry.threat,
                    "settings": {name: entry.settings.get(name) or None for name in differing},
                    "strongest_attack": entry.strongest,
                    "error_is_upper_limit": entry.limit,
                    "leakage_lower_says_nothing": entry.lower or None,
                    "metrics": {
                        name: {"mean": _finite(one.mean), "half": _finite(one.half), "n": one.n}
                        for name, one in entry.metrics.items()
                    },
                }
                for entry in self.entries
            ],
            "notes": self.notes,
        }

    def write(self, path: Path | None = None) -> Path:
        """Write the page, whole or not at all, and give its place."""
        target = path or self.page
        environment = Environment(
            loader=PackageLoader("cem.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
        )
        links = {
            name: folder / "report.html" for name, folder in self.studies.items() if (folder / "report.html").is_file()
        }
        html = environment.get_template("several.html").render(
            title=self.title,
            tables=self.tables,
            chart=self.chart,
            caption=CAPTION,
            notes=self.notes,
            links={name: quote(os.path.relpath(link, target.parent)) for name, link in links.items()},
        )
        write_text(target, html)
        return target


def compare_several(what: Sequence[str], results: Path) -> Comparison:
    """Studies, by their files or names, or runs, by their ids or parts of these.

    Raises CompareError where the two are mixed, one is named twice or has no results, ExportError for an unknown run.
    """
    places = [_study(one, results) for one in what]
    if all(places):
        studies = {place.name: place for place in places if place is not None}
        if len(studies) < len(places):
            raise CompareError(f"expected studies that differ, found one twice in: {', '.join(what)}. Name each once.")
        read = [(place, row) for place in studies.values() for row in _rows(place)]
        chosen, title, parts = read, " and ".join(studies), list(studies)
    elif any(places):
        names = [one for one, place in zip(what, places, strict=True) if place is not None]
        raise CompareError(f"expected studies or runs, found both: of these only {', '.join(names)} are studies.")
    else:
        if len(what) < 2:
            raise CompareError(
                f"expected one study or more, or two runs or more; found the run {what[0]}. Add another."
            )
        chosen, title, parts = _runs([find_run(one, results) for one in what])
        studies = {place.name: place for place, _ in chosen}
    entries = _entries(chosen, apart=not all(places))
    page = results / f"compare-{'-'.join(parts)}.html"
    with look():
        chart = _chart(entries) if len(entries) > 2 else ""
    return Comparison(title, entries, _tables(entries), chart, _notes(entries), page, studies)


def _study(what: str, results: Path) -> Path | None:
    """The folder of a study's results; None where it is no study. A file has to be one."""
    if what.endswith((".yaml", ".yml")):
        return results / load_study(what).name
    place = results / what
    return place if what and "/" not in what and (place / "runs").is_dir() else None


def _rows(study: Path) -> list[Row]:
    path = study / "runs.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise CompareError(
            f"{path}: expected the results of {study.name}, found none. Run the study, or make them of what is "
            "finished: cem report FILE"
        ) from None
    if not rows or not {"run", "threat_model", "seed", *SHOWN} <= rows[0].keys():
        raise CompareError(
            f"{path}: expected rows of runs with their scores, found others. Make it anew: cem report FILE"
        )
    return rows


def _runs(folders: Sequence[Path]) -> tuple[list[tuple[Path, Row]], str, list[str]]:
    """The rows of these runs, a title, and what names them in a file's name."""
    chosen, names = [], []
    for folder in folders:
        name, study = "/".join(folder.absolute().parts[-4:]), folder.absolute().parents[4]
        mine = [(study, row) for row in _rows(study) if row["run"] == name]
        if not mine:
            raise CompareError(
                f"{study / 'runs.csv'}: expected the run {name}, found it not. Is it finished (cem status FILE)? Then: "
                "cem report FILE"
            )
        chosen += mine
        names.append(name)
    if len({folder.absolute() for folder in folders}) < len(names):
        raise CompareError(f"expected runs that differ, found one twice in: {', '.join(names)}. Name each once.")
    return chosen, " and ".join(names), [name.rpartition("/")[2] for name in names]


def _entries(rows: list[tuple[Path, Row]], apart: bool) -> list[Entry]:
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
    """What a run was made with, by dotted path."""
    return {name: value for name, value in row.items() if name.partition(".")[0] in Run.model_fields}


def _plain(text: str) -> str:
    """A setting in a cell; pandas writes whole numbers as 3.0 where others lack the setting."""
    return text.removesuffix(".0") or "–"


def _value(text: str) -> float:
    return float(text) if text else math.nan


def _differing(settings: Sequence[Row]) -> list[str]:
    """Names of those that are not the same in all that have them: members of a family have others each."""
    names = dict.fromkeys(name for one in settings for name in one)
    return [name for name in names if len({one.get(name, "") for one in settings} - {""}) > 1]


def _tables(entries: list[Entry]) -> list[Table]:
    """One for each threat model: numbers of several are never held against each other."""
    tables = []
    for threat in dict.fromkeys(entry.threat for entry in entries):
        mine = [entry for entry in entries if entry.threat == threat]
        tables.append(_table(f"Attackers: {threat or 'none whose numbers count'}", mine))
    return tables


def _table(name: str, entries: list[Entry]) -> Table:
    """What differs among these: few entries are columns, more are rows."""
    columns: dict[str, list[str]] = {}
    if len({entry.study for entry in entries}) > 1:
        columns["study"] = [entry.study for entry in entries]
    columns |= {
        setting: [_plain(entry.settings.get(setting, "")) for entry in entries]
        for setting in _differing([entry.settings for entry in entries])
    }
    words = len(columns) + 1
    columns["seeds"] = [str(len(entry.runs)) for entry in entries]
    columns[STRONGEST] = [entry.strongest for entry in entries]
    columns |= {title: [entry.text(metric) for entry in entries] for metric, (title, _) in SHOWN.items()}
    same = {
        title: cells[0]
        for title, cells in columns.items()
        if title in (*TITLES, "seeds", STRONGEST) and len(entries) > 1 and len(set(cells)) == 1
    }
    columns = {title: cells for title, cells in columns.items() if title not in same}
    notes = [f"Equal in all: {'; '.join(f'{title} {cell}' for title, cell in same.items())}."] if same else []
    notes += [ONE_SEED] if any(len(entry.runs) == 1 for entry in entries) else []
    notes += [SPREAD] if any(len(entry.runs) > 1 for entry in entries) else []
    if len(entries) <= _MOST_SIDE_BY_SIDE:
        header = ("", *(entry.runs[0] for entry in entries))
        return Table(name, header, [(title, *cells) for title, cells in columns.items()], tuple(notes), len(header))
    rows = [tuple(cells) for cells in zip(*columns.values(), strict=True)]
    return Table(name, tuple(columns), rows, tuple(notes), min(words, len(columns)))


def _notes(entries: list[Entry]) -> list[str]:
    differing = _differing([entry.settings for entry in entries])
    notes = []
    if any(name.startswith("dataset.") for name in differing):
        notes.append("Not the same images: their errors and leakages cannot be held against each other.")
    if any(entry.strongest == "attack failed" for entry in entries):
        notes.append("attack failed: no attack counts there, so no error is given. cem status FILE says why.")
    return notes


def _chart(entries: list[Entry]) -> str:
    """Accuracy against error, a colour for each study and a mark for each threat model."""
    figure = new_figure(7.0, 4.2)
    axes = figure.subplots()
    studies = list(dict.fromkeys(entry.study for entry in entries))
    threats = list(dict.fromkeys(entry.threat for entry in entries))
    told = set()
    for entry in entries:
        accuracy, error = entry.metrics["accuracy"], entry.metrics["infer_mse"]
        key = (entry.study, entry.threat)
        label = None if key in told else (entry.study if len(threats) == 1 else f"{entry.study}, {entry.threat}")
        if math.isnan(error.mean) or math.isnan(accuracy.mean):
            continue
        told.add(key)
        half = [0.0 if math.isnan(one.half) else one.half for one in (accuracy, error)]
        axes.errorbar(
            accuracy.mean, error.mean, xerr=half[0], yerr=half[1], color=colour(studies.index(entry.study)),
            marker=marker(threats.index(entry.threat)), linestyle="none", capsize=2, label=label,
            fillstyle="none" if entry.limit else "full",
        )  # fmt: skip
    axes.set_xlabel("test accuracy, %")
    axes.set_ylabel("MSE of the strongest attack, Infer")
    if told:
        axes.legend(loc="best")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
