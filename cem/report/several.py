"""Several studies, or runs, side by side: the settings and the metrics that differ. What `cem compare` shows."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cem.config import load_study
from cem.report.cells import ONE_SEED
from cem.report.entries import SHOWN, CompareError, Entry, Row, differing, make_entries, read_rows
from cem.report.pictures import Picture, colour, finish, look, marker, new_figure
from cem.report.rendering import render
from cem.report.table import Table
from cem.storage.export import find_run
from cem.storage.files import write_text

TITLES = [title for title, _ in SHOWN.values()]
STRONGEST = "strongest attack"
CAPTION = (
    "Error of the strongest attack against accuracy; up and right is better. Bars: 95 % over seeds. Hollow: an upper "
    "limit."
)
SPREAD = "±: half the 95 % interval over training seeds (Student's t), without that over test images: see each report."
_MOST_SIDE_BY_SIDE = 3  # more are rows, not columns
_LONGEST_NAME = 120  # of what stands for the parts in a page's name


@dataclass(frozen=True)
class Comparison:
    """tables: by threat model. page: where it is written unless told otherwise. studies: name → its folder."""

    title: str
    entries: list[Entry]
    tables: list[Table]
    charts: list[Picture]  # none where there are too few points
    notes: list[str]
    page: Path
    studies: dict[str, Path]

    def as_json(self) -> dict[str, Any]:
        """For programs: of each entry what differs, and all metrics; null for what is not known or not finite."""
        names = differing([entry.settings for entry in self.entries])
        return {
            "entries": [
                {
                    "study": entry.study,
                    "runs": list(entry.runs),
                    "threat_model": entry.threat,
                    "settings": {name: entry.settings.get(name) or None for name in names},
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
        links = {
            name: folder / "report.html" for name, folder in self.studies.items() if (folder / "report.html").is_file()
        }
        html = render(
            "several.html",
            title=self.title,
            tables=self.tables,
            charts=self.charts,
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
        read = [(place, row) for place in studies.values() for row in read_rows(place)]
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
    entries = make_entries(chosen, apart=not all(places))
    page = results / f"compare-{_file_name(parts)}.html"
    with look():
        charts = [_chart(entries)] if len(entries) > 2 else []
    return Comparison(title, entries, _tables(entries), charts, _notes(entries), page, studies)


def _file_name(parts: Sequence[str]) -> str:
    """All parts; of many, which are more than a file's name may hold, the first ones and a digest of all."""
    name = "-".join(parts)
    if len(name) <= _LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[:_LONGEST_NAME]}-and-more-{digest}"


def _study(what: str, results: Path) -> Path | None:
    """The folder of a study's results; None where it is no study. A file has to be one."""
    if what.endswith((".yaml", ".yml")):
        return results / load_study(what).name
    place = results / what
    return place if what and "/" not in what and (place / "runs").is_dir() else None


def _runs(folders: Sequence[Path]) -> tuple[list[tuple[Path, Row]], str, list[str]]:
    """The rows of these runs, a title, and what names them in a file's name."""
    chosen, names = [], []
    for folder in folders:
        name, study = "/".join(folder.absolute().parts[-4:]), folder.absolute().parents[4]
        mine = [(study, row) for row in read_rows(study) if row["run"] == name]
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
        setting: [entry.settings.get(setting) or "–" for entry in entries]
        for setting in differing([entry.settings for entry in entries])
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
        header = ("run", *(entry.runs[0] for entry in entries))
        return Table(name, header, [(title, *cells) for title, cells in columns.items()], tuple(notes), len(header))
    rows = [tuple(cells) for cells in zip(*columns.values(), strict=True)]
    return Table(name, tuple(columns), rows, tuple(notes), min(words, len(columns)))


def _notes(entries: list[Entry]) -> list[str]:
    names = differing([entry.settings for entry in entries])
    notes = []
    if any(name.startswith("dataset.") for name in names):
        notes.append("Not the same images: their errors and leakages cannot be held against each other.")
    if any(entry.strongest == "attack failed" for entry in entries):
        notes.append("attack failed: no attack counts there, so no error is given. cem status FILE says why.")
    return notes


def _chart(entries: list[Entry]) -> Picture:
    """Accuracy against error, a colour for each study and a mark for each threat model."""
    figure = new_figure(7.0, 4.2)
    axes = figure.subplots()
    studies = list(dict.fromkeys(entry.study for entry in entries))
    threats = list(dict.fromkeys(entry.threat for entry in entries))
    told, seen = set(), []
    for entry in entries:
        accuracy, error = entry.metrics["accuracy"], entry.metrics["infer_mse"]
        key = (entry.study, entry.threat)
        label = None if key in told else (entry.study if len(threats) == 1 else f"{entry.study}, {entry.threat}")
        if math.isnan(error.mean) or math.isnan(accuracy.mean):
            continue
        told.add(key)
        seen.append(f"{entry.study}, {entry.runs[0]}: {accuracy.mean:.1f} % at MSE {error.mean:.3g}")
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
    alt = f"Chart of accuracy against error, a colour for each study. {'; '.join(seen)}."
    return finish(figure, "compared", "svg", CAPTION, alt)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
