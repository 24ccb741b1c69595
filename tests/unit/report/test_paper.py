"""The table for a paper: chosen columns, bold where nothing surely beats a row, LaTeX that prints as it stands."""

import re
from typing import get_args

import pytest

from cem.config import parse_study
from cem.config.study import PaperColumn
from cem.planning.plan import Plan
from cem.report import pictures
from cem.report.groups import group_plan
from cem.report.paper import COLUMNS, paper_table
from cem.report.results import gather
from cem.report.scores import Scores
from cem.report.statistics import Estimate
from cem.report.table import escape_latex
from cem.report.threat import threat_models

PDF_FONTS = pictures._LOOK["pdf.fonttype"]  # as users have it; conftest.py changes it for the tests


@pytest.fixture
def table(plan: Plan, monkeypatch):
    """The table of a study with some columns; values: column → mean and half width of each row, in place of its own."""
    results, _ = gather(plan)
    results["strongest_bound"] = False
    groups, threat = group_plan(plan), threat_models(plan)[0]

    def write(*columns: str, **values: list[tuple[float, float]]) -> list[list[str]]:
        for name, numbers in values.items():
            given = iter([Estimate(mean, half, 2) for mean, half in numbers])
            column = COLUMNS[name]
            changed = type(column)(column.title, column.higher, column.scored, lambda *_, given=given: next(given))
            monkeypatch.setitem(COLUMNS, name, changed)
        text = paper_table(groups, results, threat, Scores(plan), columns or tuple(values))
        assert text.startswith("% needs \\usepackage{booktabs}\n")
        lines = [line for line in text.splitlines() if not line.startswith("%")]
        return [line.removesuffix(r" \\").split(" & ") for line in lines]

    write.results = results
    return write


def test_the_chosen_columns_come_in_their_order(table):
    begin, top, header, *_, end = table("leakage_nats", "accuracy")
    assert (begin, top, end) == ([r"\begin{tabular}{lrrr}"], [r"\toprule"], [r"\end{tabular}"])
    assert header == ["", "seeds", r"leakage $\le$, nats", r"accuracy, \%"]


def test_a_row_has_mean_and_interval_and_the_references_stand_apart(table):
    rows = table("accuracy")
    rules = [place for place, row in enumerate(rows) if row == [r"\midrule"]]
    assert len(rules) == 2
    assert re.sub(r"\\textbf\{([^}]*)\}", r"\1", rows[4][2]) == r"97.5~$\pm$~6.4"
    assert "undefended reference" in rows[rules[1] + 1][0]


def test_bold_is_what_no_row_surely_beats(table):
    def bold(**values) -> list[bool]:
        return [r"\textbf" in row[2] for row in table(**values) if len(row) == 3][1:]

    # Four rows, the last one a reference, which is not judged. Of MSE more is better for the defender.
    assert bold(mse=[(1.0, 0.1), (2.0, 0.1), (1.85, 0.1), (9.0, 0.1)]) == [False, True, True, False]
    assert bold(ssim=[(1.0, 0.1), (2.0, 0.1), (1.85, 0.1), (0.1, 0.1)]) == [True, False, False, False]
    assert bold(mse=[(1.0, 0.1), (2.0, float("nan")), (1.85, 0.1), (9.0, 0.1)]) == [False] * 4


def test_a_limit_has_its_sign_and_is_never_the_best(table):
    gmm = table.results["surrogate"] == "gmm"
    table.results.loc[gmm, "strongest_bound"] = True
    rows = [row for row in table(mse=[(1.0, 0.1), (2.0, 0.1), (0.5, 0.1), (9.0, 0.1)]) if len(row) == 3][1:]
    assert [row[2].startswith(r"$\le$ ") for row in rows] == [False, True, False, False]
    assert [r"\textbf" in row[2] for row in rows] == [True, False, False, False]


def test_names_are_escaped():
    assert escape_latex("50% of a_b & c^2 σ") == r"50\% of a\_b \& c\textasciicircum{}2 $\sigma$"


def test_a_study_chooses_from_the_columns_that_there_are(settings):
    assert set(get_args(PaperColumn)) == set(COLUMNS)
    study = parse_study(settings(report={"columns": ["ssim"]}), "test")
    assert study.report.columns == ("ssim",)
    with pytest.raises(ValueError, match="columns"):
        parse_study(settings(report={"columns": ["colour"]}), "test")


def test_tables_are_written_beside_the_page(plan, tmp_path):
    from cem.report.page import write_page

    results, _ = gather(plan)
    for figures in (tmp_path / "figures", tmp_path / "again"):
        write_page(plan, results, tmp_path / "report.html", figures, tmp_path / "tables")
    drawings = [path.stem for path in figures.glob("*.svg")] + ["smashed"]
    assert sorted(drawings) == sorted(path.stem for path in figures.glob("*.pdf"))
    for path in figures.glob("*.pdf"):
        assert path.read_bytes().startswith(b"%PDF-")
        assert path.read_bytes() == (tmp_path / "figures" / path.name).read_bytes()
    paper = (tmp_path / "tables" / "paper.tex").read_text()
    assert paper.count(r"\\") == 5  # a header and four rows
    for path in (tmp_path / "tables").glob("*.tex"):
        text = path.read_text()
        assert text.startswith("% needs \\usepackage{booktabs}"), path
        assert r"\toprule" in text
        assert r"\hline" not in text


def test_fonts_of_a_pdf_are_those_that_publishers_take(monkeypatch):
    """TrueType: some refuse Type 3."""
    monkeypatch.setitem(pictures._LOOK, "pdf.fonttype", PDF_FONTS)
    with pictures.look():
        figure = pictures.new_figure(2.0, 2.0)
        figure.text(0.5, 0.5, "accuracy")
        pdf = pictures.finish(figure, "one", "svg", "", "").pdf
    assert b"/Subtype /CIDFontType2" in pdf
    assert b"/Type3" not in pdf
