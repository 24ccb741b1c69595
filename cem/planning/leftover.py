"""What `cem clean` may delete: runs and attacks that no study plans any more, and states that no job goes on from."""

import fcntl
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cem import CemError
from cem.config import ConfigError, load_study
from cem.jobs.work import read_work
from cem.planning.plan import Plan
from cem.planning.status import LOCKS, is_alive
from cem.planning.text import size_text
from cem.planning.workflow import run_command

STATES = ".state"


class CleanError(CemError):
    """What cannot be deleted now."""


@dataclass(frozen=True)
class Folder:
    """One that nothing needs. size: bytes of the files in it."""

    path: Path
    why: str
    size: int


@dataclass(frozen=True)
class Leftover:
    """Of some studies. kept: what looks left over and is not deleted, in words."""

    root: Path
    folders: list[Folder]
    kept: list[str]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        rows = [{"path": str(one.path), "why": one.why, "bytes": one.size} for one in self.folders]
        return {"folders": rows, "bytes": sum(one.size for one in self.folders), "kept": self.kept}

    def text(self) -> str:
        """For people."""
        lines = [f"{one.path}: {one.why}, {size_text(one.size)}" for one in self.folders]
        lines += [f"kept: {text}" for text in self.kept]
        total = size_text(sum(one.size for one in self.folders))
        return "\n".join([*lines, f"{len(self.folders)} folders to delete, {total}"])


def find_leftover(files: Iterable[Path], results: Path) -> Leftover:
    """What of these studies is left over. Other studies, in YAML files beside theirs, keep what they plan or name.

    Raises ConfigError where one of the studies, or one of the same name beside them, cannot be read: what it plans is
    not known then. Raises CleanError while a workflow is at work here.
    """
    files = list(files)
    if any(LOCKS.glob("*")):
        raise CleanError(
            f"{LOCKS}: expected no workflow at work in this folder, found its lock. Wait for it; after a crash, "
            f"this takes the lock away: {run_command(files[0])} --unlock"
        )
    asked = [Plan(load_study(file), results) for file in files]
    names = {plan.study.name for plan in asked}
    beside, kept = _beside(files, names, results)
    plans = [*asked, *beside]
    wanted = {folder for plan in plans for folder in plan.folders}
    named = {Path(path).resolve() for plan in plans for path in _named(plan.study.sparse())}
    orphans: list[Folder] = []
    for path in sorted({path for plan in asked for path in plan.orphans()} - wanted):
        inside = [one for one in named if one.is_relative_to(path.resolve())]
        if inside:
            kept.append(f"{path}: no study plans it, but one names {inside[0]}")
        elif not path.resolve().is_relative_to(results.resolve()):
            kept.append(f"{path}: it lies outside of {results}, in {path.resolve()}; delete it by hand")
        elif any(one.is_relative_to(path) for one in wanted):
            kept.append(f"{path}: folders that studies plan are in it; delete its model.safetensors by hand")
        else:
            orphans.append(Folder(path, "no study plans it", _size(path)))
    return Leftover(results, orphans + _states(asked, plans, results), kept)


def remove(leftover: Leftover) -> str:
    """Delete it, and folders that are empty then; give the size that was freed, in words.

    Raises CleanError where a folder does not lie below the results any more, or a file cannot be deleted.
    """
    root = leftover.root.resolve()
    for one in leftover.folders:
        if root not in one.path.resolve().parents or one.path.is_symlink():
            raise CleanError(f"{one.path}: expected a folder below {root}, found {one.path.resolve()}. Not deleted.")
        try:
            shutil.rmtree(one.path)
            for parent in one.path.parents:
                # Of a study that never had results the folder may stay: it is the runs' folders that pile up.
                if parent.name in ("runs", "warmup", STATES) or any(parent.iterdir()):
                    break
                parent.rmdir()
        except OSError as error:
            raise CleanError(f"{one.path}: cannot delete it: {error}. Change its rights, and clean again.") from None
    return size_text(sum(one.size for one in leftover.folders))


def _states(asked: list[Plan], plans: list[Plan], results: Path) -> list[Folder]:
    """States of the asked studies' jobs that nothing goes on from: none plans it, or another of the same is newer."""
    folders = {plan.folder for plan in asked}
    of: dict[Path, list[Path]] = {}
    for folder in results.glob(f"{STATES}/*/"):
        makes = read_work(folder)
        if makes is not None and any(makes.is_relative_to(study) for study in folders) and not _in_use(folder):
            of.setdefault(makes, []).append(folder)
    found = []
    for makes, states in sorted(of.items()):
        *older, newest = sorted(states, key=lambda path: path.stat().st_mtime)
        found += [Folder(one, f"an older state of {makes}", _size(one)) for one in older]
        if not any(plan.plans(makes) for plan in plans):
            found.append(Folder(newest, f"the state of {makes}, which no study plans", _size(newest)))
    return found


def _in_use(folder: Path) -> bool:
    """Whether a job has it: by its sign of life (of any node), or by its lock (of this one)."""
    if is_alive(folder):
        return True
    lock = folder / "lock"
    if not lock.exists():
        return False
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks: the sign of life says it
            return False
    return False


def _beside(files: list[Path], names: set[str], results: Path) -> tuple[list[Plan], list[str]]:
    """The other studies in the folders of these files; those that cannot be read are told, and refused where they
    mention the name of an asked one, which may be theirs."""
    plans, told = [], []
    known = {file.resolve() for file in files}
    for path in study_files([file.parent for file in files]):
        if path.resolve() in known:
            continue
        try:
            plans.append(Plan(load_study(path), results))
        except ConfigError as error:
            text = path.read_text(encoding="utf-8", errors="replace")
            if any(re.search(rf"\b{re.escape(name)}\b", text) for name in names):  # YAML may quote it
                raise
            told.append(f"what {path} names is not known: {str(error).splitlines()[0]}")
    return plans, told


def study_files(folders: Iterable[Path]) -> list[Path]:
    """The YAML files at any depth below folders, but for hidden folders there."""
    found = {
        path
        for folder in folders
        for kind in ("*.yaml", "*.yml")
        for path in folder.rglob(kind)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts[:-1])
    }
    return sorted(found)


def _named(settings: Any) -> Iterable[str]:
    """Every text in the settings that looks like a path."""
    if isinstance(settings, dict):
        return [path for value in settings.values() for path in _named(value)]
    if isinstance(settings, (list, tuple)):
        return [path for value in settings for path in _named(value)]
    return [settings] if isinstance(settings, str) and "/" in settings else []


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink())
