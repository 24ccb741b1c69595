"""Files that are whole or absent: written under another name, flushed to disk, renamed."""

import errno
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cem import CemError


class StoreError(CemError):
    """A file that is absent, damaged, foreign or made from something else."""


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises StoreError when it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        why = f"expected a file; cannot read it: {error.strerror}. Make it, or correct its path."
        raise StoreError(f"{path}: {why}") from None


def digests_of(paths: Iterable[str]) -> dict[str, str]:
    """Path → SHA-256 of each file. Raises StoreError where one cannot be read."""
    # Not Path's own, which raises RuntimeError for the home of a user who is not there.
    return {path: sha256(os.path.expanduser(path)) for path in paths}  # noqa: PTH111


@contextmanager
def whole_or_absent(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success flush it to disk and rename it, on failure remove it."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot write it: {error}. {_advice(error)}, and run again.") from error


def _advice(error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Allow that, or name another place"
    if error.errno in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG):
        return "Name another file"
    return "Free or choose another disk"


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_or_absent(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON, indented, whole or not at all. Raises ValueError on NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")
