"""What the records beside results share, and how one is written and read. No torch in here.

Each file has one class, for who writes it and who reads it: `cem.storage.job_records`, `cem.storage.manifest_records`.
A record's `version` is that of its format. Files of cem 0.1.0 do not say theirs: it is 1.
"""

import json
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cem.storage.files import StoreError, write_json

R = TypeVar("R", bound="Record")
Seconds = Annotated[float, Field(ge=0)]
_FEW = 3  # findings of a damaged record that are told


class Part(BaseModel):
    """Of a record: closed, so that a key that is misspelt or unknown is an error for writer and reader alike."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Record(Part):
    """A file of JSON. VERSION: what is written now; older ones are read, with what they did not say at its default."""

    VERSION: ClassVar[int] = 1
    version: int = 1

    @property
    def unsaid(self) -> set[str]:
        """What is left out of the file."""
        return set()


def write_record(path: Path, record: Record) -> None:
    """Write a record, whole or not at all, with its format's present version."""
    write_json(path, record.model_dump(mode="json", exclude=record.unsaid) | {"version": record.VERSION})


def read_record(path: Path, kind: type[R], rule: str) -> R:
    """The record at `path`. rule: what makes it.

    Raises StoreError, naming what was expected, what came and what to do, when it is absent, damaged, of a newer
    version, or of something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
    except FileNotFoundError:
        raise StoreError(f"{path}: expected a file, found none. Run {rule}.") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: expected JSON; cannot read it: {error}. Delete it and rerun {rule}.") from None
    version = found.get("version", 1) if isinstance(found, dict) else None
    if version not in range(1, kind.VERSION + 1):
        said = "no version" if version is None else f"version {version!r}"
        raise StoreError(
            f"{path}: expected {kind.__name__} version {kind.VERSION} or older, found {said}. Read it with the cem "
            f"that wrote it, or delete it and rerun {rule}."
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise StoreError(
            f"{path}: expected {kind.__name__} version {version}; {findings(error)}. It is damaged or of an older "
            f"program: delete it and rerun {rule}."
        ) from None


def findings(error: ValidationError) -> str:
    """What is wrong with a record, the first few findings: where, what was expected, what came."""
    told = []
    for one in error.errors(include_url=False):
        where = ".".join(map(str, one["loc"]))
        if one["type"] == "missing":
            told.append(f"missing: {where}")
        else:
            told.append(f"{where}: {one['msg'][0].lower()}{one['msg'][1:]}, found {one['input']!r:.80}")
    more = f" (and {len(told) - _FEW} more)" if len(told) > _FEW else ""
    return "; ".join(told[:_FEW]) + more
