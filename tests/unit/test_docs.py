"""What the pages say of the repository, held to the repository."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POINTER = re.compile(r'docs/(?P<page>\w+)\.md, "(?P<first>[^"]+)"(?: and "(?P<second>[^"]+)")?')
LINK = re.compile(r"\]\((?!https?:|#)(?P<target>[^)#\s]+)(?:#(?P<anchor>[^)\s]+))?\)")
PAPER = re.compile(r"\b([A-ZÀ-Ž]\w+)(?: et al\.|(?:, \w+)* & \w+)?,? ((?:19|20)\d\d)\b")
OWNED = ("cem", "snakemake_executor_plugin_submitit", "workflow", "config", "profiles", "tests", "benchmarks", "docs")
NAMED = re.compile(rf"`(?P<path>(?:{'|'.join(OWNED)})/[\w./-]*)`")
HAND_WRITTEN = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]


def tracked(*suffixes: str) -> list[Path]:
    """Files of the repository; a copy without git has all of its own."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this copy is no git checkout, so what belongs to the repository is unknown")
    paths = (ROOT / name for name in listed.stdout.splitlines())
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


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
