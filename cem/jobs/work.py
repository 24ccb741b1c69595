"""What an unfinished state belongs to: a line beside it that names the files its job makes."""

import json
from pathlib import Path

from cem.storage.files import write_json

FILE = "work.json"


def name_work(folder: Path, makes: Path) -> None:
    """Note in a state folder which folder (or file) its job makes."""
    write_json(folder / FILE, {"makes": str(makes)})


def read_work(folder: Path) -> Path | None:
    """Which folder (or file) a state folder's job makes; None where that is not noted, or not readable."""
    try:
        return Path(json.loads((folder / FILE).read_text(encoding="utf-8"))["makes"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
