"""Whether raw files are still those that a data set was prepared from: by names, sizes and times, else by contents."""

import hashlib
import os
from pathlib import Path

from cem.config import DatasetSettings
from cem.data.sources.files import content_digest, kind_of, visible_files
from cem.storage.records import Record, read_record, write_record

DIGITS = 16


class Prepared(Record):
    """`results/data/<id>.json`, beside the prepared file: what the raw files were like.

    fingerprint: as it was when they were read. sha256: of their contents then. same: of what they are like now, where
    only their times have changed since.
    """

    fingerprint: str
    sha256: str
    same: str


def fingerprint(dataset: DatasetSettings, prepared: Path) -> str:
    """What stands for the raw files: another text where any was replaced, added or removed since the data was prepared.

    It comes from names, sizes and times. Where only times differ from what they were then, the contents are compared,
    once for each change. Empty where the data set has no raw files. A file that is absent counts, too, but raw files
    are no longer needed once the data is prepared: where all are gone, nothing has changed.
    Raises DataError where a folder cannot be listed, StoreError where the record cannot be read or written.
    """
    files = dataset.files()
    if not files:
        return ""
    path = record_path(prepared)
    known = _read(path) if prepared.exists() else None
    if known is not None and not any(map(_is_there, files)):
        return known.fingerprint
    now = _look(files)
    if known is None:
        return now
    if now == known.same:
        return known.fingerprint
    names_and_sizes = slice(0, DIGITS)
    if now[names_and_sizes] != known.same[names_and_sizes] or content_digest(files) != known.sha256:
        return now
    write_record(path, known.model_copy(update={"same": now}))
    return known.fingerprint


def remember(dataset: DatasetSettings, prepared: Path, planned: str, sha256: str) -> None:
    """Write what the raw files were like. planned: their fingerprint before they were read; sha256: what was read."""
    if planned:
        write_record(record_path(prepared), Prepared(fingerprint=planned, sha256=sha256, same=planned))


def prepared_from(prepared: Path) -> str | None:
    """The fingerprint of the raw files that a prepared file was made from; None where none is known."""
    known = _read(record_path(prepared))
    return None if known is None else known.fingerprint


def _read(path: Path) -> Prepared | None:
    return read_record(path, Prepared, "prepare_data") if path.exists() else None


def record_path(prepared: Path) -> Path:
    """Where it is written."""
    return prepared.with_suffix(".json")


def _is_there(path: str) -> bool:
    """Whether a file is, or any below a folder: an empty one is what is left of an unmounted disk."""
    if (kind := kind_of(path)) != "a folder":
        return kind != "none"
    return any(kind_of(file) != "none" for file, _ in visible_files(path))


def _look(files: list[str]) -> str:
    """A digest of all names and sizes, then one of all times."""
    names_and_sizes, times = hashlib.sha256(), hashlib.sha256()
    for number, path in enumerate(files):
        if not os.path.lexists(path):
            names_and_sizes.update(b"absent")
            continue
        for file, name in visible_files(path):
            try:
                status = Path(file).stat()
            except OSError:  # a link whose target is gone; a folder that may be listed but not entered
                names_and_sizes.update(os.fsencode(f"{number}\0{name}\0absent\0"))
                continue
            names_and_sizes.update(os.fsencode(f"{number}\0{name}\0{status.st_size}\0"))
            times.update(f"{status.st_mtime_ns}\0".encode())
    return names_and_sizes.hexdigest()[:DIGITS] + times.hexdigest()[:DIGITS]
