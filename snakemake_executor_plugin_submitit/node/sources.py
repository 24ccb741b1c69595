"""The code that jobs run, as it was when they were planned: written down by the head, compared on the node."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from snakemake_executor_plugin_submitit.books.records import SOURCES, write_whole


def note(noted: Mapping[str, str], folder: Path) -> Path:
    """Write down the digest of each file, below `folder`; the same digests share one note."""
    text = json.dumps(dict(sorted(noted.items())), indent=1)
    goal = folder / SOURCES / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not goal.exists():
        goal.parent.mkdir(parents=True, exist_ok=True)
        write_whole(goal, text)
    return goal.absolute()


def edited(note: Path) -> list[str]:
    """The files that are not as they were noted. A note that is gone, with a pruned folder, tells nothing."""
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    return [name for name, was in noted.items() if digest(Path(name)) != was]


def below(place: Path) -> list[Path]:
    """A file itself; the Python and Snakemake files below a folder, without hidden ones."""
    if not place.is_dir():
        return [place]
    found = (path for kind in ("*.py", "*.smk", "Snakefile", "*.R") for path in place.rglob(kind))
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(place).parts)]


def digest(path: Path) -> str:
    """Of a file's content; empty when there is none."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""
