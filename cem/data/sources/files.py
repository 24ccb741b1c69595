"""Paths as users write them and as messages show them; the files below a folder; one digest of their contents."""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from cem.data.sources.source import DataError

JUNK = (  # beside all names that begin with a dot
    *("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir", "#recycle"),
    *("lost+found", "$RECYCLE.BIN", "System Volume Information"),
)
_PIECE = 1 << 20
BOMB, RATIO = 1 << 30, 300  # bytes, and how many times smaller they are packed: beyond, no images unpack so


def local(path: str) -> str:
    """The absolute path that a study's path means."""
    return os.path.abspath(os.path.expanduser(path))


def shown(path: str) -> str:
    """An absolute path in letters that can be printed, whatever bytes its name has."""
    return printable(local(path))


def printable(name: str) -> str:
    """A file's name in letters that can be printed."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "".join(f"\\x{ord(one):02x}" if ord(one) < 32 or 127 <= ord(one) < 160 else one for one in text)


def kind_of(path: str) -> str:
    """What lies at a path, in words, for an error that expected something else."""
    try:
        mode = os.stat(local(path)).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # or a name that no file can have
        return "none"
    except OSError as error:  # a folder above that may not be entered, a name that is too long
        return f"one that cannot be looked at ({error.strerror})"
    return "a folder" if stat.S_ISDIR(mode) else "a file" if stat.S_ISREG(mode) else "a pipe or device"


def starting(start: bytes) -> str:
    """What the first bytes of a file say of it."""
    known = {
        b"PK\x03\x04": "a zip file, as npz files are",
        b"\x93NUMPY": "a single NumPy array (.npy)",
        b"\x1f\x8b": "a gzip file",
        b"\x89HDF": "an HDF5 file",
        b"<": "a web page",
    }
    said = [name for first, name in known.items() if start.lstrip().startswith(first)]
    return said[0] if said else "a file of another kind" if start else "an empty file"


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


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder, or a link to one. Raises DataError where that cannot be told."""
    try:
        return entry.is_dir()
    except OSError as error:  # a link to itself; a folder that may be listed but not entered
        raise _unknown(entry.path, error) from None


def is_special(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is neither file nor folder nor a link to nothing: a pipe, a device. Reading may never end."""
    if entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False):
        return False  # which listing the folder has told, without a look at each
    try:
        mode = entry.stat().st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unknown(entry.path, error) from None
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _unknown(path: str, error: OSError) -> DataError:
    return DataError(f"{shown(path)}: cannot tell what this is: {error.strerror}. Mend or remove it.")


def walk(folder: str, _above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[os.DirEntry[str]]:
    """All files at any depth below a folder, in the order of their names. Links are followed.

    Hidden files are among them, and a hidden folder as if it were a file: it is not entered.
    Raises DataError where a folder cannot be listed, or where a link leads back to a folder above.
    """
    try:
        status = os.stat(folder)
    except OSError as error:
        raise _unknown(folder, error) from None
    key = (status.st_dev, status.st_ino)
    if key in _above:
        raise DataError(f"{shown(folder)}: found a link that leads back to a folder above it. Remove the link.")
    for entry in entries(folder):
        if not is_hidden(entry.name) and is_folder(entry):
            yield from walk(entry.path, _above | {key})
        else:
            yield entry


def visible_files(path: str) -> Iterator[tuple[str, str]]:
    """Path, and name below `path`, of a file or of all files below a folder that are not hidden or special."""
    if not os.path.isdir(path):
        yield path, ""
        return
    start = len(os.path.join(path, ""))
    for entry in walk(path):
        if not is_hidden(entry.name) and not is_special(entry):
            yield entry.path, entry.path[start:]


def content_digest(paths: Iterable[str], known: Mapping[str, bytes] = MappingProxyType({})) -> str:
    """SHA-256 of what the files hold, one after the other; of a folder, of the names and SHA-256 of the files below it.

    known: path → SHA-256 of files that were read already. Raises DataError where one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        for file, name in visible_files(path):
            if name:
                digest.update(os.fsencode(name) + b"\0" + (known.get(file) or _hashed(file, hashlib.sha256()).digest()))
            else:
                _hashed(file, digest)
    return digest.hexdigest()


def _hashed(path: str, digest: "hashlib._Hash") -> "hashlib._Hash":
    """The digest, with a file's content added."""
    try:
        with open(path, "rb", buffering=0) as opened:
            while piece := opened.read(_PIECE):
                digest.update(piece)
    except OSError as error:
        raise DataError(
            f"{shown(path)}: expected a file, cannot read it: {error.strerror}. Mend or remove it."
        ) from None
    return digest
