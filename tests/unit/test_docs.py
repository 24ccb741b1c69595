"""What the pages say of the repository, held to the repository."""

import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

import cem

ROOT = Path(__file__).parents[2]
POINTER = re.compile(r'docs/(?P<page>\w+)\.md, "(?P<first>[^"]+)"(?: and "(?P<second>[^"]+)")?')
LINK = re.compile(r"\]\((?!https?:|#)(?P<target>[^)#\s]+)(?:#(?P<anchor>[^)\s]+))?\)")
PAPER = re.compile(r"\b([A-ZÀ-Ž]\w+)(?: et al\.|(?:, \w+)* & \w+)?,? ((?:19|20)\d\d)\b")
OWNED = ("cem", "snakemake_executor_plugin_submitit", "workflow", "config", "profiles", "tests", "benchmarks", "docs")
NAMED = re.compile(rf"`(?P<path>(?:{'|'.join(OWNED)})/[\w./-]*)`")
HAND_WRITTEN = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository with these suffixes, or all."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy is no git checkout, so what belongs to the repository is unknown")
    paths = (ROOT / name for name in listed.stdout.splitlines())
    return [path for path in paths if path.is_file() and (not suffixes or path.suffix in suffixes)]


def headings(page: Path) -> list[str]:
    return re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)


def anchor(heading: str) -> str:
    """How GitHub names the place of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pointers() -> Iterator[tuple[str, str, str]]:
    """File, page and heading of every reference to a section of a page, which may be broken across lines."""
    for path in tracked(".py", ".smk", ".yaml"):
        for found in POINTER.finditer(" ".join(path.read_text(encoding="utf-8").replace("#", " ").split())):
            for name in ("first", "second"):
                if found[name]:
                    yield str(path.relative_to(ROOT)), found["page"], found[name]


def test_pointers_into_the_pages_lead_to_headings():
    found = list(pointers())
    assert len({where for where, *_ in found if where.startswith("cem/")}) > 10
    assert [(where, name) for where, page, name in found if name not in headings(ROOT / f"docs/{page}.md")] == []


def test_a_study_is_run_by_commands_that_snakemake_starts():
    """Without a profile or cores it refuses. A command in a line of text may be broken across lines."""
    told, paths = [], tracked(".md", ".yaml", ".sbatch")
    for path in (path for path in paths if path.name != "CHANGELOG.md"):
        text = path.read_text(encoding="utf-8")
        told += re.findall(r"^(?:# +)?(snakemake [^#`\n]*)", text, re.MULTILINE)
        told += re.findall(r"`(snakemake [^`]*)`", " ".join(text.replace("\n#", " ").split()))
    run = [one for one in told if "--configfile" in one]
    assert len(run) > 10
    assert [one for one in run if not re.search(r" --(profile|cores)\b| -n\b", one)] == []


def test_nothing_cites_a_page_that_is_not_in_the_repository():
    mark = "REFERENCE" + " §"
    assert [path for path in tracked(".py", ".md", ".smk", ".yaml") if mark in path.read_text(encoding="utf-8")] == []


def test_every_paper_that_the_code_cites_is_in_the_theory():
    code = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in (ROOT / "cem").rglob("*.py"))
    cited = set(PAPER.findall(code))
    assert ("Locatello", "2020") in cited
    assert cited - set(PAPER.findall(" ".join((ROOT / "docs/theory.md").read_text(encoding="utf-8").split()))) == set()


@pytest.mark.parametrize("page", HAND_WRITTEN)
def test_links_and_named_paths_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for link in LINK.finditer(text):
        target = (ROOT / page).parent / link["target"]
        assert target.exists(), link[0]
        if link["anchor"]:
            assert link["anchor"] in map(anchor, headings(target)), link[0]
    assert [path for path in NAMED.findall(text) if not (ROOT / path).exists()] == []


def tree() -> dict[str, str]:
    """Path and description of each line of the README's file tree."""
    block = (ROOT / "README.md").read_text(encoding="utf-8").split("## The files")[1].split("```")[1]
    found, parent = {}, ""
    for line in block.strip().splitlines():
        names, description = re.fullmatch(r" *((?:[\w.]+/?(?:, )?)+) +(\S.*)", line).groups()
        parent = parent if line.startswith("  ") else names
        for name in names.split(", "):
            found[f"{parent}{name}" if line.startswith("  ") else name] = description
    return found


def test_the_tree_of_the_readme_is_that_of_the_repository():
    files = [path.relative_to(ROOT) for path in tracked()]
    top = {f"{path.parts[0]}/" for path in files if len(path.parts) > 1}
    packages = {f"cem/{path.parts[1]}/" for path in files if path.match("cem/*/*.py")}
    assert set(tree()) == top | packages | {"Snakefile"}


def test_the_readme_is_short_and_names_every_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    pages = {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} | {"CONTRIBUTING.md", "config/README.md"}
    assert {page for page in pages if f"]({page})" not in text} == set()


WALKS = {  # the file that CONTRIBUTING names for a question, and a word that the answer cannot do without
    "cem/training/objective.py": "surrogate",
    "cem/defenses/noise.py": "randn",
    "cem/config/defense.py": "class NoPeek",
    "cem/config/attack.py": "class Linear",
    "cem/config/dataset.py": "class NpzDataset",
    "cem/report/page.py": "def write_report",
    "cem/jobs/interruption.py": "signal.SIGUSR2",
    "cem/attacks/tuning.py": "def halve",
    "snakemake_executor_plugin_submitit/head/causes.py": "class Cause",
}


@pytest.mark.parametrize("path", WALKS)
def test_a_walk_ends_where_contributing_says(path):
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where is")[1]
    (row,) = [line for line in section.splitlines() if f"`{path}`" in line]
    assert row.split("|")[2].split("`")[1] == path, "a row's first path is its answer"
    assert WALKS[path] in (ROOT / path).read_text(encoding="utf-8")
    assert any(path.startswith(folder) for folder in tree())


def test_contributing_has_nine_walks():
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Where is")[1]
    assert len([line for line in section.splitlines() if line.startswith("| ")]) - 1 == len(WALKS) == 9


PAGES = [
    ("defenses.md", "defenses.py"),
    ("results/defenses_mnist.md", "defenses.py"),
    ("results/answer.md", "answer.py"),
]


@pytest.mark.parametrize(("file", "script"), PAGES)
def test_tables_and_figures_come_again_from_the_rows_that_are_kept(file, script, tmp_path):
    page = (ROOT / "docs" / file).read_text(encoding="utf-8")
    command = next(line for line in page.splitlines() if line.startswith(f"python benchmarks/{script} docs/"))
    words, drawn = command.split()[1:], tmp_path / "figure.svg"
    figure = words.index("--figure") + 1 if "--figure" in words else None
    if figure is not None:
        kept, words[figure] = ROOT / words[figure], str(drawn)
        assert f"]({kept.name})" in page
    made = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert page.endswith(made.stdout)
    if figure is not None:
        assert drawn.read_bytes() == kept.read_bytes()


def test_rows_of_two_data_sets_or_of_two_budgets_are_not_mixed(tmp_path):
    kept = ROOT / "docs/results/answer_cifar10.csv"
    lines = kept.read_text(encoding="utf-8").splitlines()
    others = {
        "found cifar10_10k, other": [lines[0], lines[1].replace(",cifar10_10k,", ",other,")],
        "expected one error of an attack on a run": [lines[0], lines[1].replace(",0.0604376,", ",0.05,")],
    }
    for said, rows in others.items():
        (tmp_path / "other.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
        command = [sys.executable, "benchmarks/answer.py", str(kept), str(tmp_path / "other.csv")]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert made.returncode
        assert said in made.stderr


def test_the_suspects_table_holds_each_step_against_the_one_before(tmp_path):
    """Rows of other methods, renamed: 5 points and a fifth of the error apart, the same in both seeds."""
    rows = pd.read_csv(ROOT / "docs/results/answer_cifar10.csv")
    rows = rows[rows["seed"].isin([0, 1]) & rows["strongest_of"].notna()]
    steps = list(runpy.run_path(str(ROOT / "benchmarks/suspects.py"))["STEPS"].values())
    first = rows[(rows["method"] == "gmm bound") & (rows["strength"] < 0.5)]
    made = [
        first.assign(
            method=name, method_id=name, run=first["run"] + name, accuracy=first["accuracy"] - 0.05 * place,
            mse=first["mse"] * 0.8**place,
        )
        for place, name in enumerate(steps)
    ]  # fmt: skip
    kept = tmp_path / "rows.csv"
    pd.concat([rows, *made]).to_csv(kept, index=False)
    command = [sys.executable, "benchmarks/suspects.py", str(kept)]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line for line in made.stdout.splitlines() if line.startswith("|")]
    told = [line.split(" | ")[5:9] for line in lines[2:] if line.split(" | ")[5]]
    assert [(one[0][:5], one[2][:4]) for one in told] == [("−5.00", "0.80")] * 4


@pytest.mark.parametrize("page", sorted((ROOT / "docs/results").glob("*.md")), ids=lambda page: page.stem)
def test_a_page_of_results_says_which_numerics_made_them(page):
    text = page.read_text(encoding="utf-8")
    for name in ("NUMERICS", "ATTACK_NUMERICS"):
        told = [int(value) for value in re.findall(rf"`{name}` (\d+)", text)]
        assert told, f"{page.name}: expected a sentence with `{name}` and its value in cem/__init__.py then"
        assert all(1 <= value <= getattr(cem, name) for value in told)
