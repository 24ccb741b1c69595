"""The images of a folder of folders, and what lies beside them."""

import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain

from cem.data.sources.files import entries, is_folder, is_hidden, is_special, printable, shown, walk
from cem.data.sources.picture import is_picture_file
from cem.data.sources.source import DataError

NAMED = 3  # files of a kind that a note names
NO_IMAGE = "no image that can be read"
_NOT_HASHED = ("hidden", "no regular file")


@dataclass
class Listing:
    """The images that are read, in the order of their rows; and those left out, by the reason."""

    names: list[str]  # of the classes
    files: list[str] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)  # train, val or test, of each file
    skipped: dict[str, list[str]] = field(default_factory=dict)  # why → files
    _places: dict[str, str] = field(default_factory=dict)  # folder without links → as it was named

    def add(self, folder: str, label: int, part: str) -> None:
        """All images at any depth below a folder. Raises DataError where it is another one by a link."""
        other = self._places.setdefault(os.path.realpath(folder), folder)
        if other != folder:
            raise DataError(
                f"{shown(folder)}: expected a folder of its own for each class and part, found a link to what "
                f"{shown(other)} is, too. Remove one."
            )
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
            if is_hidden(entry.name) or not is_folder(entry):
                self.skip(why_not(entry) or "in no folder of a class", entry.path)

    def check_classes(self, root: str, where: str) -> None:
        """Raise DataError where the files of a class are of no kind that can be read."""
        filled = set(self.labels)
        empty = [name for label, name in enumerate(self.names) if label not in filled]
        left_out = [path for path in self.skipped.get(NO_IMAGE, []) if not {*empty}.isdisjoint(path.split(os.sep))]
        if left_out:
            raise DataError(
                f"{where}: expected images of all {len(self.names)} classes, found none that can be read of "
                f"{', '.join(map(repr, empty[:5]))}{' …' if len(empty) > 5 else ''}, only {_few(left_out, root)}. "
                "Convert them to PNG or JPEG first."
            )

    def check_access(self) -> None:
        """Raise DataError where a file may not be read: they are part of the data's digest, whether images or not."""
        left_out = (files for why, files in self.skipped.items() if why not in _NOT_HASHED)
        for path in chain(self.files, *left_out):
            if not os.access(path, os.R_OK):
                raise DataError(f"{shown(path)}: expected a file that can be read. Allow that, or remove it.")

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
    if is_special(entry) or not entry.is_file():
        return "no regular file"
    return None if is_picture_file(entry.path) else NO_IMAGE


def _few(files: list[str], root: str) -> str:
    """The first few, and the kinds of all."""
    named = ", ".join(shown(path).removeprefix(shown(root) + "/") for path in files[:NAMED])
    kinds = Counter(printable(os.path.splitext(path)[1].lower()) or "no suffix" for path in files)
    more = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(NAMED))
    return named if len(files) <= NAMED else f"{named}, … ({more})"


def base_name(path: str) -> str:
    """The last part of a path, as it can be shown."""
    return os.path.basename(shown(path))
