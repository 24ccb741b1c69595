"""The books: one folder per submission, with its record, submitit's files and the jobs' logs. Written before sbatch."""

import json
import os
import shutil
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

VERSION: Literal[1] = 1
RECORD = "record.json"
FOLDER = "submitit"  # of the books, inside Snakemake's own folder
_OPEN_DAYS = 60.0  # longer than jobs wait and run
SOURCES = "sources"  # folder in the books with notes of what the code was

State = Literal["open", "done", "failed", "retried", "cancelled"]


class RecordError(Exception):
    """A record that cannot be read. The message names the file, what is wrong with it and what to do."""


class Member(BaseModel, extra="forbid", validate_assignment=True):
    """One job of a submission.

    key: its identity (see `head.identity`). state `retried`: it failed and was sent again. cause: one line. log: a
    path.
    """

    key: str
    rule: str
    outputs: list[str]
    attempt: int = 1
    state: State = "open"
    cause: str = ""
    node: str = ""
    log: str = ""


class Extra(BaseModel, extra="forbid"):
    """What only the cluster `local` notes. gpus: ids of those that the job has for itself."""

    gpus: list[str] = []


class Submission(BaseModel, extra="forbid", validate_assignment=True):
    """Jobs that were submitted together, as `record.json` in their folder has them.

    job_id is None until sbatch has answered; `name`, which is also the folder's, finds the jobs even then. scope: what
    the head was asked to work on. submitted: seconds since 1970. request: see `cluster.resources.Request`.
    """

    version: Literal[1] = VERSION
    name: str
    scope: str
    submitted: float
    request: dict[str, Any]
    members: list[Member]
    folder: Path
    job_id: str | None = None
    extra: Extra = Field(default_factory=Extra)

    def element(self, index: int) -> str:
        """SLURM's id of a member."""
        return str(self.job_id) if len(self.members) == 1 else f"{self.job_id}_{index}"

    def events(self, index: int) -> Path:
        """The file in which the node notes what happens to a member: see `events`."""
        return self.folder / f"events-{index}.jsonl"

    def save(self) -> None:
        """Write the record, whole or not at all."""
        write_whole(self.folder / RECORD, json.dumps(self.model_dump(mode="json"), indent=1))


class Books:
    """All submissions below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.trouble = ""  # why records cannot be written now; empty when they can
        self._unsaved: list[Submission] = []

    def save(self, submission: Submission) -> None:
        """Write a record. One that cannot be written, as on a full disk, is kept for `catch_up`: see `trouble`."""
        if submission in self._unsaved:
            self._unsaved.remove(submission)
        try:
            submission.save()
        except OSError as error:
            self._unsaved.append(submission)
            self.trouble = str(error)

    def catch_up(self) -> None:
        """Write the records that could not be written before."""
        if self._unsaved:
            self.trouble = ""
        for submission in list(self._unsaved):
            self.save(submission)

    def unreadable_names(self) -> set[str]:
        """Names of submissions whose record cannot be read; their jobs may live."""
        return {path.parent.name for path in self.root.glob(f"jobs/*/{RECORD}")} - {one.name for one in self.read()[0]}

    def open(self, scope: str, request: dict[str, Any], members: list[Member]) -> Submission:
        """Enter a submission, before anything is sent."""
        name = f"smk-{uuid.uuid4().hex[:12]}"
        folder = self.root / "jobs" / name
        folder.mkdir(parents=True)  # raises OSError, as what follows does
        submission = Submission(
            name=name, scope=scope, submitted=time.time(), request=request, members=members, folder=folder
        )
        submission.save()
        if not self._unsaved:
            self.trouble = ""
        return submission

    def discard(self, submission: Submission) -> None:
        """Forget a submission of which nothing was sent. What cannot be removed is closed, and pruned some day."""
        for member in submission.members:
            member.state = "cancelled"
        with suppress(OSError):  # what follows may take it away all the same
            submission.save()
        shutil.rmtree(submission.folder, ignore_errors=True)  # a network file system keeps what somebody has open

    def read(self) -> tuple[list[Submission], list[str]]:
        """Every submission on record, oldest first; and a message for each record that cannot be read."""
        found, unreadable = [], []
        for path in sorted(self.root.glob(f"jobs/*/{RECORD}")):
            try:
                found.append(read_record(path))
            except RecordError as error:
                unreadable.append(str(error))
        return sorted(found, key=lambda submission: submission.submitted), unreadable

    def prune(self, days: float) -> None:
        """Remove folders that were last written so many days ago; ten times as many, and two months at least, where a
        job is still open.

        With them go the notes of sources (see `use`) that none of those that stay can refer to.
        """
        oldest = time.time()
        for submission in self.read()[0]:
            is_open = any(member.state == "open" for member in submission.members)
            try:
                age_s = time.time() - (submission.folder / RECORD).stat().st_mtime
            except OSError:  # another head was faster
                continue
            if age_s > 86400 * (max(10 * days, _OPEN_DAYS) if is_open else days):
                shutil.rmtree(submission.folder, ignore_errors=True)  # a later head tries again
            else:
                oldest = min(oldest, submission.submitted)
        for note in self.root.glob(f"{SOURCES}/*.json"):
            with suppress(OSError):
                if note.stat().st_mtime < oldest:
                    note.unlink()

    def use(self, submission: Submission, note: str) -> None:
        """Note that a submission refers to a note of sources: its time says which was the last one."""
        with suppress(OSError):  # it may then be pruned early, and edits are not told
            os.utime(note, (submission.submitted, submission.submitted))


def read_record(path: Path) -> Submission:
    """A submission from its record. Raises RecordError for a damaged one, and for one of another version."""
    try:
        submission = Submission.model_validate_json(path.read_bytes())
    except OSError as error:
        raise RecordError(f"{path}: expected a record, cannot read it: {error}. Check its permissions.") from None
    except ValidationError as error:
        name = path.parent.name
        raise RecordError(
            f"{path}: expected a record of version {VERSION}, found something else ({_first(error)}). It is passed "
            f"over; a head cancels what is left of its jobs, since nobody knows which files they write (squeue --me "
            f"--name {name} shows them). Then delete {path.parent}."
        ) from None
    submission.folder = path.parent  # where it is now: the working folder may have moved
    return submission


def _first(error: ValidationError) -> str:
    """The first complaint about a record: where, what was expected, what was found."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    found = "" if first["type"] in ("missing", "json_invalid") else f", found {first['input']!r:.60}"
    return f"{place + ': ' if place else ''}{first['msg'][:1].lower()}{first['msg'][1:]}{found}"


def write_whole(path: Path, text: str, keep_times: bool = False) -> None:
    """Write a file beside its place, bring it to the disk, and put it there.

    keep_times: with the times and the mode of the file that it replaces.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if keep_times:
            shutil.copystat(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
