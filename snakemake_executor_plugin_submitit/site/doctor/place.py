"""The working folder: its path, its file system, and whether that keeps what jobs and heads rely on."""

import errno
import fcntl
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from snakemake_executor_plugin_submitit.site.doctor.finding import Finding
from snakemake_executor_plugin_submitit.site.program import Program

_SHARED = re.compile(r"nfs|lustre|gpfs|beegfs|ceph|panfs|wekafs|pvfs|orangefs|glusterfs|afs|cifs|smb|fuse|9p|virtiofs")


def check_place(
    folder: Path, shared_matters: bool, probed: bool, program: Program, more: Callable[[Path], Iterator[Finding]]
) -> Iterator[Finding]:
    """shared_matters: there is a cluster. probed: a node will be asked whether it sees this folder.

    more: further checks, made in a scratch folder inside it.
    """
    if "%" in str(folder):
        advice = "Rename it, or work elsewhere: snakemake --directory"
        yield Finding(
            "problem", "path", f"{folder} holds a %, which SLURM reads as a pattern in the names of logs", advice
        )
    else:
        yield Finding("ok", "path", str(folder))
    yield _file_system(folder, shared_matters, probed, program)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{program.name}-doctor-", dir=folder) as name:
            scratch = Path(name)
            yield _locks(scratch)
            yield _rename(scratch)
            yield from more(scratch)
    except OSError as error:
        advice = "Change its permissions, or work elsewhere: snakemake --directory"
        yield Finding("problem", "folder", f"expected to write in {folder}, cannot: {error}", advice)


def _file_system(folder: Path, shared_matters: bool, probed: bool, program: Program) -> Finding:
    kind = file_system(folder)
    if _SHARED.search(kind):
        return Finding("ok", "file system", f"{kind}, shared between hosts")
    if not shared_matters:
        return Finding("ok", "file system", f"{kind}")
    if probed:
        return Finding("ok", "file system", f"{kind}, not known to be shared: the probe will tell")
    return Finding(
        "warning",
        "file system",
        f"{kind}, not known to be shared: nodes may not see this folder",
        f"Run {program.name} doctor with --probe, or work on a file system that all nodes mount.",
    )


def file_system(folder: Path) -> str:
    """Type of the file system a folder is on, as the kernel names it."""
    best, kind = "", "unknown"
    try:
        lines = Path("/proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return kind
    for line in lines:
        words = line.split(" ")
        mount = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), words[1])
        if len(mount) >= len(best) and folder.resolve().is_relative_to(mount):
            best, kind = mount, words[2]
    return kind


def is_locked(path: Path) -> bool:
    """Whether somebody else holds the lock of a file. Raises OSError where there are no locks."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return True
            raise
    return False


def _locks(scratch: Path) -> Finding:
    advice = "The executor then tells heads apart by host and pid: start no second head in this folder on another host."
    path = scratch / "lock"
    try:
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not is_locked(path):
                return Finding("warning", "locks", "flock was granted twice on one file", advice)
    except OSError as error:
        return Finding("warning", "locks", f"flock does not work here ({error.strerror})", advice)
    return Finding("ok", "locks", "flock keeps a second one out")


def _rename(scratch: Path) -> Finding:
    old, new = scratch / "new", scratch / "old"
    old.write_text("new")
    new.write_text("old")
    old.replace(new)
    if old.exists() or new.read_text() != "new":
        advice = "Files are put in place by renaming: work on another file system."
        return Finding("problem", "rename", "a renamed file did not take the place of the other", advice)
    return Finding("ok", "rename", "a renamed file takes the place of the other")
