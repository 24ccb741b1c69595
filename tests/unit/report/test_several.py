"""Studies and runs side by side: what differs, in the terminal and on one page."""

import csv
import json
import re
from pathlib import Path

import pytest

from cem.cli import main
from cem.planning.plan import Plan
from cem.report.entries import differing
from cem.report.results import gather, write_tables


@pytest.fixture
def compared(plan: Plan, monkeypatch, capsys):
    """Run `cem compare` where a study has its results: exit code, standard output, standard error."""
    results, runs = gather(plan)
    write_tables(results, runs, plan.folder / "results.csv", plan.folder / "runs.csv")
    monkeypatch.chdir(plan.root.parent)

    def compare(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as done:
            main(["compare", *words])
        return done.value.code, *capsys.readouterr()

    return compare


def other_study(plan: Plan, name: str = "other", **changes: str) -> Path:
    """The results of a study with the same rows under another name, with other values in some columns."""
    with (plan.folder / "runs.csv").open(newline="") as file:
        rows = [row | changes for row in csv.DictReader(file)]
    folder = plan.root / name
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    with (folder / "runs.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def test_one_study_is_a_row_for_each_setting_and_not_for_each_seed(compared, plan):
    code, out, err = compared("study.yaml")
    assert (code, err) == (0, "")
    header, *rows = out.splitlines()[1:6]
    assert header.split()[:2] == ["noise_std", "surrogate.kind"]
    assert [row.split()[1] for row in rows] == ["none", "gmm", "attention", "none"]
    assert "96.5 ± 6.4" in rows[1].replace("\N{NO-BREAK SPACE}", " ")  # accuracies 97 and 96 %: t(1) = 12.706
    assert "Equal in all: seeds 2" in out
    assert "surrogate.covariance" not in out  # only gmm has it, and all of its runs the same
    assert out.splitlines()[-1] == "page: results/compare-fake.html"


def test_two_runs_are_two_columns_with_what_differs_between_them(compared, plan):
    first, second = [run.id for run in plan.runs.values() if run.surrogate.kind == "gmm"]
    code, out, _ = compared(first, second.rpartition("/")[2])
    assert code == 0
    rows = {line.split("  ")[0]: line.split()[-2:] for line in out.splitlines()}
    assert rows["seed"] == ["0", "1"]
    assert rows["accuracy, %"] == ["97.00", "96.00"] or rows["accuracy, %"] == ["97.0", "96.0"]
    assert "noise_std" not in rows
    assert "1 seed" in out


def test_two_studies_are_told_apart_and_other_images_are_said(compared, plan):
    other_study(plan, accuracy="0.5")
    code, out, _ = compared("fake", "other")
    assert code == 0
    assert {line.split()[0] for line in out.splitlines()[2:10]} == {"fake", "other"}
    assert "Not the same images" not in out
    other_study(plan, "elsewhere", **{"dataset.side": "64"})
    assert "Not the same images" in compared("fake", "elsewhere")[1]


def test_numbers_of_two_threat_models_share_no_table(compared, plan):
    other_study(plan, threat_model="another one")
    out = compared("fake", "other")[1]
    tables = [text for text in out.split("Attackers: ") if text]
    assert len(tables) == 2
    assert "other" not in tables[0].replace("another one", "")
    assert tables[1].startswith("another one\n")


def test_the_page_is_one_file_whose_words_are_text(compared, plan):
    other_study(plan, "other", strongest_attack="<script>alert(1)</script>")
    compared("fake", "other")
    html = (plan.root / "compare-fake-other.html").read_text()
    assert html.count("<script") == 1  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)
    assert html.count("<caption>") == html.count("<table") == 1
    plan.report.touch()
    compared("fake", "other")
    assert '<a href="fake/report.html">fake</a>' in (plan.root / "compare-fake-other.html").read_text()


def test_programs_get_json(compared, plan):
    _, out, _ = compared("fake", "--json", "-o", "here.html")
    found = json.loads(out)
    assert found["page"] == "here.html"
    assert Path("here.html").is_file()
    assert len(found["entries"]) == 4
    assert found["entries"][0]["metrics"]["accuracy"]["mean"] == pytest.approx(97.5)
    assert found["entries"][-1]["metrics"]["leakage_nats"]["mean"] is None  # infinite


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fake", "fake"], "expected studies that differ"),
        (["fake", "none/s0"], "of these only fake are studies"),
        (["gmm-bound-w0.1/s0"], "two runs or more; found the run gmm-bound-w0.1/s0"),
        (["gmm-bound-w0.1/s0", "gmm-bound-w0.1/s0"], "expected runs that differ"),
        (["empty"], "empty/runs.csv: expected the results of empty, found none"),
        (["damaged"], "damaged/runs.csv: expected rows of runs with their scores, found others"),
        (["comma"], "comma/runs.csv: expected numbers under accuracy, found '0,97'"),
        (["nothing", "at all"], "found none for 'nothing'"),
    ],
)
def test_what_cannot_be_compared_is_refused(compared, plan, words, message):
    for name in ("empty", "damaged"):
        (plan.root / name / "runs").mkdir(parents=True)
    (plan.root / "damaged" / "runs.csv").write_text("run,seed\na,1\n")
    other_study(plan, "comma", accuracy="0,97")
    code, out, err = compared(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert not list(plan.root.glob("compare-*"))


def test_a_whole_number_is_the_same_however_pandas_wrote_it(compared, plan):
    """As 32.0 where other rows of that study lack the setting. What only looks like one stays."""
    other_study(plan, **{"training.epochs": "240.0", "dataset.path": "data/v1"})
    other_study(plan, "third", **{"training.epochs": "240", "dataset.path": "data/v1.0"})
    out = compared("other", "third")[1]
    assert "training.epochs" not in out
    assert "data/v1.0" in out


def test_a_page_of_many_runs_has_a_name_that_a_file_can_have(compared, plan):
    names = [run.id for run in plan.runs.values()]
    code, out, _ = compared(*names)
    assert code == 0
    page = Path(out.splitlines()[-1].removeprefix("page: "))
    assert page.is_file()
    assert len(page.name) < 160
    assert compared(*names[1:])[1].splitlines()[-1] != out.splitlines()[-1]


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"training.max_grad_norm": ""}, {"training.max_grad_norm": "5"}, ["training.max_grad_norm"]),
        ({"dataset.source": "npz", "dataset.augment": ""}, {"dataset.source": "npz", "dataset.augment.flip": "True"},
         ["dataset.augment.flip"]),
        ({"surrogate.kind": "none"}, {"surrogate.kind": "gmm", "surrogate.weight": "1"}, ["surrogate.kind"]),
        ({"model.arch": "vgg11", "model.width": "1"}, {"model.arch": "vit_small", "model.patch": "4"}, ["model.arch"]),
        ({"noise_std": "0.1"}, {"noise_std": "0.1"}, []),
    ],
)  # fmt: skip
def test_what_is_absent_differs_from_a_value_and_what_another_member_lacks_does_not(one, other, names):
    assert differing([one, other]) == names
    assert differing([other, one, other]) == names
