"""The books: one folder a submission, with its record, submitit's files and the jobs' logs. Written before sbatch."""

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

VERSION = 1
RECORD = "record.json"


@dataclass
class Member:
    """One job of a submission.

    key: its identity (see `identity`). state: open, done, failed, retried (sent again) or cancelled. cause: one line.
    """

    key: str
    rule: str
    outputs: list[str]
    attempt: int = 1
    state: str = "open"
    cause: str = ""
    node: str = ""
    log: str = ""


@dataclass
class Submission:
    """Jobs that were submitted together. job_id is None until sbatch has answered; name finds them even then."""

    name: str
    scope: str
    submitted: float
    request: dict[str, Any]
    members: list[Member]
    folder: Path
    job_id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def element(self, index: int) -> str:
        """SLURM's id of a member."""
        return str(self.job_id) if len(self.members) == 1 else f"{self.job_id}_{index}"

    def events(self, index: int) -> Path:
        """What the node writes of a member: see `events`."""
        return self.folder / f"events-{index}.jsonl"

    def save(self) -> None:
        """Write the record, whole or not at all."""
        content = asdict(self) | {"version": VERSION, "folder": str(self.folder)}
        write_whole(self.folder / RECORD, json.dumps(content, indent=1))


class Books:
    """All submissions below a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def open(self, scope: str, request: dict[str, Any], members: list[Member]) -> Submission:
        """Enter a submission, before anything is sent."""
        name = f"smk-{uuid.uuid4().hex[:12]}"
        folder = self.root / "jobs" / name
        folder.mkdir(parents=True)
        submission = Submission(name, scope, time.time(), request, members, folder)
        submission.save()
        return submission

    def read(self) -> Iterator[Submission]:
        """Every submission on record, oldest first. A record of another version is none of ours."""
        found = []
        for path in self.root.glob(f"jobs/*/{RECORD}"):
            content = json.loads(path.read_text())
            if content.pop("version") == VERSION:
                members = [Member(**member) for member in content.pop("members")]
                found.append(Submission(**content | {"folder": path.parent, "members": members}))
        yield from sorted(found, key=lambda submission: submission.submitted)

    def prune(self, days: float) -> None:
        """Remove folders that were last written so many days ago; ten times as many where something is still open."""
        for submission in self.read():
            is_open = any(member.state == "open" for member in submission.members)
            age_s = time.time() - (submission.folder / RECORD).stat().st_mtime
            if age_s > days * 86400 * (10 if is_open else 1):
                shutil.rmtree(submission.folder)


def write_whole(path: Path, text: str) -> None:
    """Write a file beside its place, bring it to the disk, and put it there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
