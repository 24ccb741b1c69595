"""The page: everything a reader needs in one file that opens offline."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from cem.planning.plan import Plan
from cem.planning.status import RunStatus
from cem.report.absent import absent_metrics
from cem.report.charts import attack_curves, term_curves, training_curves
from cem.report.data import about_data
from cem.report.equal_accuracy import Comparisons, write_frames
from cem.report.floor import read_entropy
from cem.report.groups import group_plan
from cem.report.images import Gallery
from cem.report.inputs import read_results, read_test, read_training
from cem.report.ladder import ladder_table
from cem.report.looks import looks_of
from cem.report.maps import smashed_maps
from cem.report.paper import paper_table
from cem.report.pictures import Picture, look
from cem.report.provenance import provenance, remedies
from cem.report.published import published_table
from cem.report.rendering import render
from cem.report.scores import Scores
from cem.report.section import make_section, numbered_tables
from cem.report.shown import mapped_groups, shown_groups, shown_note
from cem.report.table import Table
from cem.report.tables import (
    attacks_table,
    budget_table,
    costs_table,
    reasons_table,
    totals_table,
)
from cem.report.threat import threat_models
from cem.report.timeline import timeline
from cem.report.warnings import warnings_of
from cem.storage.files import whole_or_absent, write_text


def write_report(
    plan: Plan,
    results_parquet: str | Path,
    out_html: str | Path,
    figures_dir: str | Path | None = None,
    tables_dir: str | Path | None = None,
) -> None:
    """Write one self-contained HTML page; the figures and LaTeX tables also as files where folders are given.

    Equal inputs give equal bytes. Raises ReportError or StoreError naming the file and the rule that makes it when one
    is absent, damaged, or not of this study.
    """
    write_page(plan, read_results(plan, results_parquet), out_html, figures_dir, tables_dir)


def write_page(
    plan: Plan,
    results: pd.DataFrame,
    out_html: str | Path,
    figures_dir: str | Path | None = None,
    tables_dir: str | Path | None = None,
    *,
    whole: Plan | None = None,
    missing: Sequence[RunStatus] = (),
    file: Path | None = None,
) -> None:
    """As `write_report`, from results as they are. whole: all that is planned; missing: runs of it without a result.

    file: the study's, which the commands for these runs name.
    """
    whole, groups, scores = whole or plan, group_plan(plan), Scores(plan)
    looks = looks_of(groups)
    frames = Comparisons(results, lambda run, attack: scores.images(run, attack, "infer", "mse")).frames()
    with look(), threadpool_limits(1):  # more threads add up in another order, which moves points on the maps
        threats = threat_models(whole)
        shown = shown_groups(groups, results, threats[0])
        images = {name: (read_entropy(plan, one), read_test(plan, one)[2]) for name, one in plan.datasets.items()}
        sections = [
            make_section(plan, groups, shown, results, threat, scores, images, frames, number)
            for number, threat in enumerate(threats, 1)
        ]
        pictures = {
            "training": [training_curves(plan, shown, looks), *_found(term_curves(plan, shown, looks))],
            "costs": _found(timeline(plan)) if len(shown) == len(groups) else [],
            "attacks": attack_curves(plan, shown, looks),
            "smashed": [smashed_maps(plan, mapped_groups(groups, shown, results, threats[0]), len(groups))],
        }
    tables = {"attacks": attacks_table(plan, groups, results, scores)}
    tables |= {table.name: table for bound in (False, True) if (table := reasons_table(groups, results, bound)).rows}
    published = published_table(plan, groups, results, scores)
    tables |= {"published": published} if published is not None else {}
    ladder = ladder_table(plan, groups, results, scores)
    tables |= {"ladder": ladder} if ladder is not None else {}
    tables |= {"budgets": budget_table(plan, results), "costs": costs_table(groups, results)}
    tables |= {"totals": totals_table(plan)}
    html = render(
        "report.html",
        study=plan.study,
        sections=sections,
        planned=len(whole.runs),
        missing=missing,
        tables=tables,
        pictures=pictures,
        data=[about_data(plan, name) for name in plan.datasets],
        trained=provenance(plan) | _about_training(plan),
        remedies=remedies(whole, missing, file),
        settings=settings_text(plan),
        warnings=warnings_of(plan, groups),
        absent=absent_metrics(plan, results),
        runs_of={
            group.label: [(run.id, _beside(plan.run(run), plan.folder)) for run in group.runs] for group in groups
        },
        shown=shown_note(groups, shown),
        files=Files(
            results=("results.csv", "runs.csv") if missing else ("results.csv", "runs.csv", "results.parquet"),
            figures=_beside(figures_dir, Path(out_html).parent),
            tables=_beside(tables_dir, Path(out_html).parent),
            frames=tuple(f"{name}.csv" for name in frames),
        ),
    )
    drawn = [picture for one in sections for picture in (one.tradeoff, one.floor, *_files(one.galleries)) if picture]
    drawn += [picture for several in pictures.values() for picture in several]
    if tables_dir is not None:
        write_frames(frames, tables_dir)
    _write_files(figures_dir, tables_dir, drawn, [*numbered_tables(sections), *tables.values()])
    if tables_dir is not None:
        for number, threat in enumerate(threats, 1):
            paper = paper_table(groups, results, threat, scores, whole.study.report.columns)
            write_text(Path(tables_dir) / f"paper{'' if number == 1 else f'_{number}'}.tex", paper)
    write_text(out_html, html)


def write_missing(plan: Plan, missing: Sequence[RunStatus], out_html: str | Path, file: Path | None = None) -> None:
    """The page of a study of which nothing is finished: what is missing, and the commands that make it."""
    facts = {"study": plan.study, "planned": len(plan.runs), "missing": missing}
    html = render("missing.html", **facts, remedies=remedies(plan, missing, file), settings=settings_text(plan))
    write_text(out_html, html)


@dataclass(frozen=True)
class Files:
    """What lies beside the page and is linked from it: the results, and the folders of figures and tables, if any."""

    results: tuple[str, ...]
    figures: str
    tables: str
    frames: tuple[str, ...]  # in tables


def _beside(path: str | Path | None, folder: Path) -> str:
    """A path as the page names it; empty where there is none, or it is not below the page's folder."""
    return Path(path).relative_to(folder).as_posix() if path and Path(path).is_relative_to(folder) else ""


def _found(picture: Picture | None) -> list[Picture]:
    return [] if picture is None else [picture]


def _files(several: list[Gallery]) -> list[Picture]:
    return [gallery.file for gallery in several]


def settings_text(plan: Plan) -> str:
    """The study as YAML that `load_study` reads: what differs from the defaults."""
    sparse = plan.study.sparse()
    if "extra_runs" in sparse:
        sparse["runs"] = sparse.pop("extra_runs")  # the name it has in a study's file
    return str(yaml.safe_dump(sparse, sort_keys=False, allow_unicode=True, width=110))


def _about_training(plan: Plan) -> dict[str, str]:
    """What the runs were made with; several values where the runs differ."""
    trained = [read_training(plan, run) for run in plan.runs.values()]
    facts = [
        {f"version of {name}": version for name, version in one.versions.items()}
        | {"device": one.device, "threads": one.threads, "numerics": one.numerics, "epochs": one.epochs}
        | {f"parameters of the {part}": f"{count:,}" for part, count in one.parameters.items()}
        | {f"SHA-256 of {path}": digest for path, digest in one.files.items()}
        | {"seconds of the warm-up": f"{one.warmup_seconds:.0f}", "best epoch": one.best_epoch}
        for one in trained
    ]
    names = dict.fromkeys(name for fact in facts for name in fact)
    values = {name: dict.fromkeys(str(fact[name]) for fact in facts if name in fact) for name in names}
    return {name: ", ".join(value) for name, value in values.items()}


def _write_files(
    figures_dir: str | Path | None, tables_dir: str | Path | None, pictures: list[Picture], tables: list[Table]
) -> None:
    if figures_dir is not None:
        for picture in pictures:
            place = Path(figures_dir) / picture.name
            for path, data in ((place, picture.data), (place.with_suffix(".pdf"), picture.pdf)):
                if data:
                    with whole_or_absent(path) as temporary:
                        temporary.write_bytes(data)
    if tables_dir is not None:
        for table in tables:
            write_text(Path(tables_dir) / f"{table.name}.tex", table.latex())
