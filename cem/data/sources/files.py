"""Paths as users write them and as messages show them; the files below a folder; one digest of their contents."""

import hashlib
import os
from collections.abc import Iterable, Iterator

from cem.data.sources.source import DataError

JUNK = ("Thumbs.db", "desktop.ini", "__MACOSX")  # beside all names that begin with a dot
_PIECE = 1 << 20


def local(path: str) -> str:
    """The absolute path that a study's path means."""
    return os.path.abspath(os.path.expanduser(path))


def shown(path: str) -> str:
    """An absolute path in letters that can be printed, whatever bytes its name has."""
    return printable(local(path))


def printable(name: str) -> str:
    """A file's name in letters that can be printed."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_hidden(name: str) -> bool:
    """Whether an operating system or a program left this name, and no user put an image there."""
    return name.startswith(".") or name in JUNK


def entries(folder: str) -> list[os.DirEntry[str]]:
    """What lies in a folder, in the order of the names. Raises DataError where it cannot be listed."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{shown(folder)}: cannot list this folder: {error.strerror}. Mend or remove it.") from None


def walk(folder: str, _above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[os.DirEntry[str]]:
    """All files at any depth below a folder, in the order of their names. Links are followed.

    Hidden files are among them, and a hidden folder as if it were a file: it is not entered.
    Raises DataError where a folder cannot be listed, or where a link leads back to a folder above.
    """
    status = os.stat(folder)
    key = (status.st_dev, status.st_ino)
    if key in _above:
        raise DataError(f"{shown(folder)}: found a link that leads back to a folder above it. Remove the link.")
    for entry in entries(folder):
        if entry.is_dir() and not is_hidden(entry.name):
            yield from walk(entry.path, _above | {key})
        else:
            yield entry


def visible_files(path: str) -> Iterator[tuple[str, str]]:
    """Path, and name below `path`, of a file or of all files below a folder that are not hidden."""
    if not os.path.isdir(path):
        yield path, ""
        return
    for entry in walk(path):
        if not is_hidden(entry.name):
            yield entry.path, entry.path[len(os.path.join(path, "")) :]


def content_digest(paths: Iterable[str]) -> str:
    """SHA-256 of what the files hold, one after the other, and of the names of those below a folder.

    Raises DataError where one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file, name in visible_files(path):
            try:
                with open(file, "rb", buffering=0) as opened:
                    if name:
                        digest.update(os.fsencode(f"{name}\0{os.fstat(opened.fileno()).st_size}\0"))
                    while piece := opened.read(_PIECE):
                        digest.update(piece)
            except OSError as error:
                raise DataError(
                    f"{shown(file)}: expected a file, cannot read it: {error.strerror}. Mend or remove it."
                ) from None
    return digest.hexdigest()
