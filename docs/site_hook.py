"""Hook of mkdocs: pages that lie outside docs/ are on the site, too, and links lead to where a page is there.

Links in the pages are those of the repository, so that they work on GitHub. On the site a page of docs/ lies at the
top, and every other page keeps its path in the repository.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = ("config/README.md", "config/paper/README.md", "benchmarks/README.md", "CONTRIBUTING.md", "CHANGELOG.md")
LINK = re.compile(r"(?<!!)\[(?P<words>[^\]]+)\]\((?!\w+:|#)(?P<target>[^)#\s]+)(?P<anchor>#[^)\s]+)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/."""
    for path in OUTSIDE:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Page with every link leading to the site's page; a file that the site does not have is named, not linked."""
    here = page.file.src_uri
    folder = posixpath.dirname(here if here in OUTSIDE else f"docs/{here}")

    def on_site(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(folder, link["target"]))
        there = path if path in OUTSIDE else path.removeprefix("docs/")
        if files.get_file_from_path(there):
            target = posixpath.relpath(there, posixpath.dirname(here) or ".")
            return f"[{link['words']}]({target}{link['anchor'] or ''})"
        if not (ROOT / path).exists():
            return link[0]  # a broken link, which the strict build refuses
        return f"{link['words']} (`{path}` in the repository)"

    return LINK.sub(on_site, markdown)
