"""The site of docs/ is built strictly, and a reader of it needs no network."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[2]


class Loaded(HTMLParser):
    """What a browser fetches for a page, and what it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if told.get("src"):
            self.fetched.append(told["src"])
        if tag == "link" and told.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.fetched.append(told["href"])
        if tag == "a" and told.get("href"):
            self.links.append(told["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if find_spec("material") is None or find_spec("mkdocstrings") is None:
        pytest.skip("mkdocs-material or mkdocstrings is not installed: pip install -r requirements.lock")
    made = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(made)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return made


def pages(site: Path) -> dict[Path, Loaded]:
    found = {}
    for page in sorted(site.rglob("*.html")):
        found[page] = Loaded()
        found[page].feed(page.read_text(encoding="utf-8"))
    return found


def test_the_site_has_every_page(site):
    made = {str(page.relative_to(site)) for page in site.rglob("*.html")}
    written = {str(page.relative_to(ROOT / "docs").with_suffix(".html")) for page in (ROOT / "docs").rglob("*.md")}
    assert written - made == set()
    assert {"config/index.html", "benchmarks/index.html", "CONTRIBUTING.html", "CHANGELOG.html"} - made == set()
    assert "GmmSurrogate" in (site / "config/index.html").read_text(encoding="utf-8")


def test_nothing_of_the_site_is_fetched_from_elsewhere(site):
    remote = [
        (page.name, url) for page, loaded in pages(site).items() for url in loaded.fetched if urlsplit(url).netloc
    ]
    assert remote == []
    styles = [style.read_text(encoding="utf-8") for style in site.rglob("*.css")]
    assert styles
    assert [
        url for style in styles for url in re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)\"']+", style)
    ] == []


def test_links_of_the_site_lead_to_its_files(site):
    found = pages(site)
    inside = [(page, url) for page, loaded in found.items() if page.name != "404.html" for url in loaded.links]
    inside = [(page, unquote(urlsplit(url).path)) for page, url in inside if not urlsplit(url).scheme]
    assert len(inside) > 100
    assert [(page.name, path) for page, path in inside if path and not (page.parent / path).resolve().exists()] == []
    settings = [page.name for page, path in inside if (page.parent / path).resolve() == site / "config/index.html"]
    assert "data.html" in settings, "docs/data.md links ../config/README.md, which is on the site"


def test_the_site_can_be_searched(site):
    assert "hypervolume" in (site / "search/search_index.json").read_text(encoding="utf-8")


def test_the_reference_has_the_public_names(site):
    page = (site / "reference.html").read_text(encoding="utf-8")
    text = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    for name in re.findall(r"^::: ([\w.]+)\n(?!    options)", text, re.MULTILINE):
        package = import_module(name)
        documented = [one for one in package.__all__ if isinstance(getattr(package, one), FunctionType | type)]
        assert documented, name
        assert [one for one in documented if f'id="{name}.{one}"' not in page] == [], name
