"""What makes two jobs the same: rule, outputs, parameters, code and inputs. A live job is adopted only by its equal."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def members_of(job: Any) -> list[Any]:
    """The single jobs of a job or of a group."""
    return list(job.jobs) if job.is_group() else [job]


def outputs_of(job: Any) -> list[str]:
    """Paths a job or group writes, sorted."""
    return sorted(str(path) for single in members_of(job) for path in single.output)


def name_of(job: Any) -> str:
    """Rule of a job; the rules of a group, joined."""
    return "+".join(sorted({single.rule.name for single in members_of(job)}))


def identity(job: Any, snakefile_folder: Path) -> str:
    """Digest of everything a job's result depends on: its rule, wildcards, params, outputs, its script's or command's
    text, and name, size and time of each input that no job of its own group makes."""
    singles = members_of(job)
    made = {str(path) for single in singles for path in single.output}
    content = [_describe(single, made, snakefile_folder) for single in singles]
    text = json.dumps(sorted(content, key=lambda one: one["outputs"]), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _describe(job: Any, made: Iterable[str], folder: Path) -> dict[str, Any]:
    return {
        "rule": job.rule.name,
        "wildcards": dict(job.wildcards_dict),
        "params": [repr(value) for value in job.params] + sorted(job.params.keys()),
        "outputs": sorted(map(str, job.output)),
        "code": [str(job.shellcmd), str(job.rule.run_func_src) if job.is_run else "", _script(job.rule.script, folder)],
        "inputs": sorted(_stamp(str(path)) for path in job.input if str(path) not in made),
    }


def _script(script: object, folder: Path) -> str:
    if script is None:
        return ""
    path = folder / str(script)
    return path.read_text(encoding="utf-8") if path.is_file() else str(script)


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return path, -1, -1
    return path, found.st_size, found.st_mtime_ns
