"""The images of a folder of folders, and what lies beside them."""

import os
from collections import Counter
from dataclasses import dataclass, field

from cem.data.sources.files import entries, is_hidden, shown, walk
from cem.data.sources.picture import is_picture_file
from cem.data.sources.source import DataError

NAMED = 3  # files of a kind that a note names


@dataclass
class Listing:
    """The images that are read, in the order of their rows; and those left out, by the reason."""

    names: list[str]  # of the classes
    files: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)  # train, val or test, of each file
    skipped: dict[str, list[str]] = field(default_factory=dict)  # why → files

    def add(self, folder: str, label: int, part: str) -> None:
        """All images at any depth below a folder."""
        for entry in walk(folder):
            if (why := why_not(entry)) is not None:
                self.skip(why, entry.path)
            else:
                self.files.append(entry.path)
                self.labels.append(label)
                self.parts.append(part)

    def skip(self, why: str, path: str) -> None:
        """Leave a file out, but count it."""
        self.skipped.setdefault(why, []).append(path)

    def skip_all(self, why: str, folder: str) -> None:
        """Leave out what lies below a folder."""
        for entry in walk(folder):
            self.skip(why_not(entry) or why, entry.path)

    def skip_beside(self, folder: str) -> None:
        """Leave out the files that lie in a folder of folders."""
        for entry in entries(folder):
            if is_hidden(entry.name) or not entry.is_dir():
                self.skip(why_not(entry) or "in no folder of a class", entry.path)

    def notes(self, root: str) -> list[str]:
        """What was left out, counted and named."""
        return [
            f"{len(files)} {'file was' if len(files) == 1 else 'files were'} left out ({why}): {_few(files, root)}."
            for why, files in sorted(self.skipped.items())
        ]


def why_not(entry: os.DirEntry[str]) -> str | None:
    """Why a file is not read; None: it is. Raises DataError for a link to nothing."""
    if is_hidden(entry.name):
        return "hidden"
    if entry.is_symlink() and not os.path.exists(entry.path):
        raise DataError(
            f"{shown(entry.path)}: expected a file, found a link to nothing ({shown(os.readlink(entry.path))}). "
            "Fetch what it points to, or remove it."
        )
    if not entry.is_file():
        return "no regular file"
    return None if is_picture_file(entry.path) else "no image that can be read"


def _few(files: list[str], root: str) -> str:
    """The first few, and the kinds of all."""
    named = ", ".join(shown(path).removeprefix(shown(root) + "/") for path in files[:NAMED])
    kinds = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in files)
    more = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(NAMED))
    return named if len(files) <= NAMED else f"{named}, … ({more})"


def base_name(path: str) -> str:
    """The last part of a path, as it can be shown."""
    return os.path.basename(shown(path))
