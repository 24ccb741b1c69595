"""The page in a real browser: what its reader sees, does and prints. Skipped where no Chromium is installed."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cem.cli import main
from cem.planning.plan import Plan
from cem.report.page import write_report
from cem.report.rendering import render
from cem.report.results import aggregate
from cem.report.table import Table

from .browser import Browser, find_browser
from .conftest import STUDY, set_facts, write_study

pytestmark = pytest.mark.skipif(find_browser() is None, reason="no Chromium: apt-get install chromium")

# What a name would do if it were not shown as text. Settings refuse it; the page does not rely on that.
HOSTILE = "<img src=x onerror=document.title='broken'>"
LAMBDAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
WIDE = """[...document.querySelectorAll('main *')].filter((one) => one.getClientRects().length
  && one.getBoundingClientRect().right > innerWidth + 1 && !one.closest('.scroll, .chart, pre, .tools'))
  .map((one) => one.outerHTML.slice(0, 120))"""
CUT = """[...document.querySelectorAll('.table th, .table td')].filter((one) => {
  const box = one.getBoundingClientRect();
  return !one.closest('thead') && (box.width === 0 || box.right > innerWidth + 1);
}).map((one) => one.textContent)"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A study with two strengths of a method, so that there is a line to draw."""
    text = STUDY.replace("  - {kind: gmm}\n", "  - {kind: gmm}\n  - {kind: gmm, weight: 0.3}\n")
    plan = write_study(tmp_path_factory.mktemp("browser"), text)
    plan.study = plan.study.model_copy(update={"name": HOSTILE})
    aggregate(plan, plan.folder / "results.parquet", plan.folder / "results.csv", plan.folder / "runs.csv")
    write_report(plan, plan.folder / "results.parquet", plan.report, plan.folder / "figures", plan.folder / "tables")
    return plan


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """Fourteen runs: six λ and plain noise, of two seeds. The more λ, the less accuracy, and the more error."""
    methods = "".join(f"  - {{kind: gmm, weight: {weight}}}\n" for weight in LAMBDAS)
    text = STUDY.replace("  - {kind: gmm}\n  - {kind: attention}\n", methods)
    plan = write_study(tmp_path_factory.mktemp("sweep"), text)
    assert sum(run.noise_std > 0 for run in plan.runs.values()) == 14  # the others are the references
    for run in plan.runs.values():
        strength = LAMBDAS.index(run.surrogate.weight) + 1 if run.surrogate.adds_term else 0
        error = (0.011 if run.noise_std else 0.01) * 1.2**strength
        set_facts(plan, run, 0.98 - 0.02 * strength - 0.001 * run.seed, error * (1 + 0.01 * run.seed))
    aggregate(plan, plan.folder / "results.parquet", plan.folder / "results.csv", plan.folder / "runs.csv")
    write_report(plan, plan.folder / "results.parquet", plan.report, plan.folder / "figures", plan.folder / "tables")
    return plan


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def column(browser: Browser, table: str, place: int) -> list[str]:
    """The texts of a column of a table, of the rows that can be seen."""
    rows = f"[...document.querySelectorAll('[data-name={table}] tbody tr')].filter((row) => row.offsetParent)"
    return list(browser.run(f"{rows}.map((row) => row.cells[{place}].lastChild.textContent)"))


def search(browser: Browser, words: str) -> None:
    """Type into the search of the summary."""
    typed = f"{{const one = document.querySelector('[data-name=summary] input[type=search]'); one.value = '{words}';"
    browser.run(typed + "one.dispatchEvent(new Event('input'))}")


def csv(browser: Browser, folder: Path) -> list[str]:
    """The lines of the file that the summary's button saves."""
    buttons = "[...document.querySelectorAll('[data-name=summary] .tools button')]"
    saved = browser.saved(f"{buttons}.find((one) => one.textContent === 'CSV').click()", folder)
    assert saved.name == "summary.csv"
    return saved.read_text().splitlines()


def dot(place: int) -> str:
    """A point of the front's second family, for the browser."""
    return f"document.querySelectorAll('.front [data-family=\"2\"] .point')[{place}].querySelector('.dot')"


def hover(browser: Browser, point: str) -> str:
    """What is told of a point under the pointer."""
    browser.run(f"{point}.scrollIntoView({{block: 'center'}})")
    place = json.loads(browser.run(f"JSON.stringify({point}.getBoundingClientRect())"))
    middle = {"x": place["x"] + place["width"] / 2, "y": place["y"] + place["height"] / 2}
    browser.ask("Input.dispatchMouseEvent", type="mouseMoved", **middle)
    assert browser.run("document.querySelector('.tip').offsetParent !== null")
    return str(browser.run("document.querySelector('.tip').textContent"))


def told(browser: Browser) -> list[Any]:
    """Messages, errors, and what was asked for beyond the file."""
    asked = [one["request"]["url"] for one in browser.said("Network.requestWillBeSent")]
    outside = [url for url in asked if not url.startswith(("data:", "blob:"))][1:]  # the first is the page
    noise = browser.said("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [*outside, *noise]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [375, 1000, 1600])
def test_it_opens_in_silence_and_does_not_scroll_sideways(plan: Plan, browser: Browser, width: int, dark: bool) -> None:
    browser.open(plan.report, width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []
    assert told(browser) == []
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_a_hostile_name_is_text_and_pictures_load(plan: Plan, browser: Browser) -> None:
    browser.open(plan.report)
    assert browser.run("document.querySelector('.study').textContent") == f"Study {HOSTILE}"
    assert "broken" not in browser.run("document.title").replace(HOSTILE, "")
    assert browser.run("document.scripts.length") == 1
    assert browser.run("document.images.length") > 8
    assert browser.run("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    assert browser.run("[...document.images].every((one) => one.alt.length > 10)")
    assert browser.run("[...document.querySelectorAll('svg[role]')].every((one) => one.ariaLabel.length > 10)")
    ids = "[...document.querySelectorAll('[id]')].map((one) => one.id)"
    assert browser.run(f"{ids}.length === new Set({ids}).size")


def test_the_policy_lets_no_other_script_run(plan: Plan, browser: Browser) -> None:
    browser.open(plan.report)
    browser.run(
        "{const one = document.createElement('script'); one.text = 'window.run = 1'; document.body.append(one)}"
    )
    assert browser.run("window.run") is None


def test_tables_fold_sort_filter_and_give_csv(plan: Plan, browser: Browser, tmp_path: Path) -> None:
    browser.open(plan.report)
    summary = "document.querySelector('[data-name=summary]')"
    heads = (
        f"[...{summary}.querySelectorAll('thead th')].filter((one) => one.offsetParent).map((one) => one.textContent)"
    )
    assert browser.run(heads) == [
        "runs", "strongest attack", "accuracy, %", "MSE, Infer", "SSIM", "leakage ≤, nats",
    ]  # fmt: skip
    sort = f"{summary}.querySelectorAll('thead th')[5].firstChild.click()"
    browser.run(sort)
    errors = column(browser, "summary", 5)
    assert [error[:7] for error in errors] == sorted(error[:7] for error in errors)
    assert column(browser, "summary", 0)[0] == "undefended reference"
    browser.run(sort)
    assert column(browser, "summary", 5) == errors[::-1]
    assert browser.run(f"{summary}.querySelectorAll('thead th')[5].ariaSort") == "descending"
    browser.run(f"{summary}.querySelector('tbody button').click()")
    assert "rank 1 of 100, %" in browser.run(f"{summary}.querySelector('.rest').textContent")
    browser.run(f"{summary}.querySelector('fieldset input').click()")  # the second column goes
    assert "strongest attack" not in browser.run(heads)
    search(browser, "GMM w0.3")
    assert column(browser, "summary", 0) == ["gmm-bound-w0.3"]
    lines = csv(browser, tmp_path)
    assert len(lines) == 2
    assert lines[0].startswith('runs,strongest attack,seeds,"accuracy, %",')
    assert lines[1].startswith("gmm-bound-w0.3,decoder †,2,")
    browser.run(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.copied = text; }}})"
    )
    browser.run(f"[...{summary}.querySelectorAll('.tools button')].find((one) => one.textContent === 'Copy').click()")
    assert browser.run("window.copied").splitlines()[1].startswith("gmm-bound-w0.3\tdecoder †\t2\t")
    assert told(browser) == []


def test_the_front_names_the_run_under_the_pointer_and_is_filtered_by_its_legend(plan: Plan, browser: Browser) -> None:
    browser.open(plan.report)
    assert browser.run("[...document.querySelectorAll('.legend li')].map((one) => one.textContent)") == [
        "plain noise", "gmm-bound-w… (λ 0.1 to 0.3)", "attention-mixture-w0.1",
    ]  # fmt: skip
    colours = "[...document.querySelectorAll('.front [data-family] .path')].map((one) => getComputedStyle(one).stroke)"
    assert browser.run(f"new Set({colours}).size") == 3
    assert browser.run("document.querySelectorAll('.front .path')[1].getAttribute('d')").count("L") == 1
    assert hover(browser, dot(0)).startswith("gmm-bound-w0.1\ntest accuracy 96.50")
    browser.run("document.querySelectorAll('.legend input')[1].click()")
    assert browser.run(f"{dot(0)}.getBoundingClientRect().width") == 0
    browser.run("document.querySelectorAll('.legend input')[1].click()")
    assert browser.run(f"{dot(0)}.getBoundingClientRect().width") > 0


@pytest.mark.parametrize("width", [375, 1600])
def test_a_sweep_of_lambda_is_one_line_in_the_order_of_lambda(
    sweep: Plan, browser: Browser, tmp_path: Path, width: int
) -> None:
    browser.open(sweep.report, width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []
    legend = browser.run("[...document.querySelectorAll('.legend li')].map((one) => one.textContent)")
    assert legend == ["plain noise", "gmm-bound-w… (λ 0.01 to 3)"]
    line = browser.run("document.querySelectorAll('.front .path')[1].getAttribute('d')")
    places = [float(one.split(",")[0].split()[0].lstrip("ML")) for one in re.findall(r"[ML][^ML]+", line)]
    assert len(places) == len(LAMBDAS)
    assert places == sorted(places, reverse=True)  # accuracy falls along it
    assert browser.run("document.querySelectorAll('.front [data-family=\"2\"] .point').length") == len(LAMBDAS)
    assert browser.run("[...document.images].every((one) => one.complete && one.naturalWidth > 0)")
    summary = "document.querySelector('[data-name=summary]')"
    browser.run(f"{summary}.querySelectorAll('thead th')[5].firstChild.click()")
    labels = column(browser, "summary", 0)
    assert labels[-6:] == [f"gmm-bound-w{weight:g}" for weight in LAMBDAS]
    for table, place in (("front", 1), ("summary", 0)):  # by the strength, and by a name with a strength in it
        browser.run(
            f"document.querySelector('[data-name={table}]').querySelectorAll('thead th')[{place}].firstChild.click()"
        )
        found = [one for one in column(browser, table, place) if one.startswith(("λ", "gmm"))]
        start = "λ " if table == "front" else "gmm-bound-w"
        assert found == [f"{start}{weight:g}" for weight in sorted(LAMBDAS)]
    assert hover(browser, dot(2)).startswith("gmm-bound-w0.1\ntest accuracy 91.95")
    search(browser, "gmm w0.03")
    assert column(browser, "summary", 0) == ["gmm-bound-w0.03"]
    assert [line.split(",")[0] for line in csv(browser, tmp_path)] == ["runs", "gmm-bound-w0.03"]
    browser.run("document.querySelectorAll('.legend input')[1].click()")
    assert browser.run(f"{dot(2)}.getBoundingClientRect().width") == 0
    assert told(browser) == []


def test_a_sweep_is_read_at_night_and_on_paper(sweep: Plan, browser: Browser) -> None:
    browser.open(sweep.report, width=1000, dark=True)
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert browser.run(WIDE) == []
    browser.open(sweep.report, width=700, media="print")
    assert browser.run(CUT) == []
    assert browser.run("document.documentElement.scrollWidth") <= 700


@pytest.mark.parametrize(
    ("columns", "number"), [(3, "0.00549 ± 0.00791"), (4, "≤ 0.00549 ± 0.00791 †"), (2, "≤ 0.0055 †")]
)
def test_on_paper_long_numbers_are_not_cut(browser: Browser, tmp_path: Path, columns: int, number: str) -> None:
    """As those of two seeds are: beside one another where there is place, below one another where there is not."""
    cell = number.replace(" ", "\N{NO-BREAK SPACE}")
    header = ("runs", "seeds", *(f"attack {place}" for place in range(columns)))
    table = Table("attacks", header, [("attention-conditional-w0.4, σ 0.05", "2", *[cell] * columns)])
    page = tmp_path / "page.html"
    page.write_text(render("several.html", title="t", tables=[table], charts=[], notes=[], links={}), encoding="utf-8")
    browser.open(page, width=700, media="print")
    assert browser.run(CUT) == []
    assert browser.run("document.documentElement.scrollWidth") <= 700


@pytest.mark.parametrize("width", [375, 1600])
def test_a_comparison_opens_in_silence_and_its_tables_sort(
    plan: Plan, browser: Browser, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.chdir(plan.root.parent)
    with pytest.raises(SystemExit) as done:
        main(["compare", "study.yaml"])
    assert done.value.code == 0
    browser.open(plan.root / "compare-fake.html", width=width)
    assert told(browser) == []
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(WIDE) == []
    name = browser.run("document.querySelector('.table').dataset.name")
    before = column(browser, name, 0)
    sort = f"document.querySelector('[data-name={name}] thead th').firstChild.click()"
    browser.run(sort)
    browser.run(sort)
    assert sorted(before) == sorted(column(browser, name, 0))
    assert column(browser, name, 0) == sorted(before, reverse=True)


def test_without_a_script_all_of_it_is_there(plan: Plan, browser: Browser) -> None:
    """Evaluating is scripting, too: the layout is asked for over the protocol."""
    browser.open(plan.report, script=False, width=375)
    assert browser.ask("Page.getLayoutMetrics")["cssContentSize"]["width"] <= 375
    root = browser.ask("DOM.getDocument")["root"]["nodeId"]
    cells = "[data-name=summary] thead th"
    for node in browser.ask("DOM.querySelectorAll", nodeId=root, selector=cells)["nodeIds"]:
        assert browser.ask("DOM.getBoxModel", nodeId=node)["model"]["width"] > 0
    browser.open(plan.report)


def test_on_paper_every_column_is_there_and_nothing_is_cut(plan: Plan, browser: Browser, tmp_path: Path) -> None:
    browser.open(plan.report, width=700, media="print")
    assert browser.run(CUT) == []
    assert browser.run("document.documentElement.scrollWidth") <= 700
    if shutil.which("pdftotext") is None:
        pytest.skip("the layout holds; no pdftotext to read the PDF with: apt-get install poppler-utils")
    browser.open(plan.report)
    heads = browser.run("[...document.querySelectorAll('[data-name=summary] thead th')].map((one) => one.textContent)")
    browser.print(tmp_path / "page.pdf")
    text = subprocess.run(["pdftotext", tmp_path / "page.pdf", "-"], capture_output=True, text=True, check=True).stdout
    words = " ".join(text.split())
    assert len(heads) == 17
    assert [head for head in heads[1:] if f"{head}:" not in words] == []
