"""Jobs of earlier heads: which of them is still the right one for a task, and what was submitted for it before.

What makes two jobs the same is their `identity`: rule, parameters, code, outputs and inputs. A live job is adopted only
by its equal.
"""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from snakemake_executor_plugin_submitit.books.events import Attempt, has_ended_well, read_attempts
from snakemake_executor_plugin_submitit.books.records import Member, Submission
from snakemake_executor_plugin_submitit.cluster.send import is_whole
from snakemake_executor_plugin_submitit.cluster.slurm import PASSING, Rows, is_alive
from snakemake_executor_plugin_submitit.head.task import Task, members_of

TRIGGERS = ("mtime", "params", "input", "software-env", "code")  # Snakemake's, all of them
_OWN = {"input", "output", "params", "wildcards", "threads", "resources", "log", "jobid", "name", "rule", "rulename"}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
Places = list[tuple[Submission, int]]


def identity(job: Any, triggers: Collection[str] = TRIGGERS) -> str:
    """Digest of what a job's result depends on, as far as Snakemake's rerun triggers ask for it.

    Always its rule, wildcards and outputs. params: but those that come from inputs, outputs, threads or resources.
    code: the text of its script, or of its command before anything is filled in. input: the names of its inputs. mtime:
    size and time of each input that is not `ancient()` and that no job of its own group makes. software-env: its
    environment. How it is run is not part of it.
    """
    singles = members_of(job)
    made = {str(path) for single in singles for path in single.output}
    content = [_describe(single, made, triggers) for single in singles]
    text = json.dumps(sorted(content, key=lambda one: one["outputs"]), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _describe(job: Any, made: Collection[str], triggers: Collection[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "rule": job.rule.name,
        "wildcards": dict(job.wildcards_dict),
        "outputs": sorted(map(str, job.output)),
    }
    inputs = [path for path in job.input if str(path) not in made]
    if "params" in triggers:
        found["params"] = _params(job)
    if "code" in triggers:
        run = str(job.rule.run_func_src) if job.is_run else ""
        found["code"] = [str(job.rule.shellcmd), *_filled_in(job), run, *_files_of_code(job)]
    if "input" in triggers:
        found["inputs"] = sorted(map(str, inputs))
    if "mtime" in triggers:
        found["times"] = sorted(_stamp(str(path)) for path in inputs if not getattr(path, "is_ancient", False))
    if "software-env" in triggers:
        found["environment"] = [str(job.conda_env_spec), str(job.container_img_url), plain(job.env_modules)]
    return found


def _params(job: Any) -> list[Any]:
    """Each with its name, but for those that come from inputs, outputs, threads or resources."""
    given = list(job.params)  # first: it makes the others anew, where inputs were made meanwhile
    kept = {json.dumps(plain(value)) for value in job.non_derived_params}
    named = sorted(((name, plain(value)) for name, value in job.params.items()), key=lambda pair: pair[0])
    values = [value for value in map(plain, given) if json.dumps(value) in kept]
    return [values, [[name, value] for name, value in named if json.dumps(value) in kept]]


def _filled_in(job: Any) -> list[str]:
    """What a command holds beside the job's own files, numbers and parameters: `config[lr]`, another name."""
    fields = [field for _, field, _, _ in Formatter().parse(job.rule.shellcmd or "") if field]
    return [job.format_wildcards(f"{{{field}}}") for field in fields if re.split(r"\W", field)[0] not in _OWN]


def plain(value: Any) -> Any:
    """A value as JSON takes it, the same in every process: sets are sorted, addresses of objects left out."""
    if isinstance(value, dict):
        pairs = [[plain(key), plain(one)] for key, one in value.items()]
        return ["dict", *sorted(pairs, key=json.dumps)]
    if isinstance(value, set | frozenset):
        return ["set", *sorted(map(plain, value), key=json.dumps)]
    if isinstance(value, list | tuple):
        return [type(value).__name__, *map(plain, value)]
    if is_dataclass(value) and not isinstance(value, type):
        return [
            type(value).__name__,
            *(plain([one.name, getattr(value, one.name)]) for one in fields(value) if one.repr),
        ]
    # Arrays and tables, whose repr leaves out the middle of many values.
    tell = getattr(value, "tolist", None) or (getattr(value, "to_dict", None) if hasattr(value, "columns") else None)
    if callable(tell) and not isinstance(value, type):
        return [type(value).__name__, str(getattr(value, "dtype", "")), plain(tell())]
    return _ADDRESS.sub("", repr(value))


def _files_of_code(job: Any) -> list[str]:
    """The text of a rule's script or notebook, which lies beside the file that has the rule; other code by its name."""
    rule = job.rule
    found = [str(rule.wrapper), str(rule.cwl)]
    for name in (rule.script, rule.notebook):
        if name is not None:
            path = Path(str(rule.basedir)) / job.format_wildcards(str(name))
            found.append(path.read_text(encoding="utf-8") if path.is_file() else str(path))
    return found


def _stamp(path: str) -> tuple[str, int, int]:
    try:
        found = Path(path).stat()
    except OSError:
        return path, -1, -1
    return path, found.st_size, found.st_mtime_ns


@dataclass(eq=False)
class Former:
    """A job that an earlier head entered in the books and did not close."""

    submission: Submission
    index: int
    is_gone: bool = False  # by the controller's own word

    @property
    def member(self) -> Member:
        return self.submission.members[self.index]

    @property
    def id(self) -> str:
        return self.submission.element(self.index)

    @property
    def last(self) -> Attempt | None:
        """Its last attempt."""
        return next(reversed(read_attempts(self.submission.events(self.index))), None)

    @property
    def ended_well(self) -> bool:
        return has_ended_well(self.submission.events(self.index))

    def ended_since(self, since: float) -> bool:
        """Whether it ended well, and after this time."""
        last = self.last
        return self.ended_well and last is not None and last.last is not None and last.last.time > since

    def is_alive(self, rows: Rows) -> bool:
        return is_alive(rows, self.id, self.submission.name)

    def is_passing(self, rows: Rows) -> bool:
        """Whether the queue has it in a state of the past that SLURM often follows with a requeue."""
        return self.id in rows and rows[self.id].name == self.submission.name and rows[self.id].state in PASSING

    def find(self, rows: Rows) -> bool:
        """Learn its id by its name, where the earlier head died between sbatch and its note; whether it is news."""
        if self.submission.job_id is not None:
            return False
        ids = {job.split("_")[0] for job, row in rows.items() if row.name == self.submission.name}
        self.submission.job_id = min(ids, key=int, default=None)
        return bool(ids)


def classify(task: Task, formers: Iterable[Former], rows: Rows, since: float) -> tuple[Former | None, list[Former]]:
    """The former job that a task takes over, if any, and those that write the same files and are out of date.

    Taken over is its equal (`identity`) that lives, or that ended well after `since`, when Snakemake decided what has
    to run: a forced rerun of an older result really runs. One whose submission is not whole could never start.
    """
    adopted, outdated = None, []
    for former in formers:
        same = former.member.key == task.key
        if not set(former.member.outputs) & set(task.outputs) and (former.member.outputs or not same):
            continue
        fresh = former.ended_since(since)
        equal = same and former.submission.job_id is not None
        if (
            adopted is None
            and equal
            and (fresh or (former.is_alive(rows) and is_whole(former.submission, former.index)))
        ):
            adopted = former
        else:
            outdated.append(former)
    return adopted, outdated


class Histories:
    """What was submitted to make the same files in the same way, since they were last made, by whichever head."""

    def __init__(self, submissions: Iterable[Submission]) -> None:
        """submissions: all on record when a head starts, oldest first."""
        self._places: dict[tuple[str, ...], Places] = defaultdict(list)
        for submission in submissions:
            for index, member in enumerate(submission.members):
                self._places[_same(member.key, member.outputs)].append((submission, index))

    def before(self, key: str, outputs: list[str]) -> Places:
        """Of a job that is to be submitted now."""
        return _since_done(self._places[_same(key, outputs)])

    def until(self, submission: Submission, index: int) -> Places:
        """Of a job that is on record, itself the last."""
        member = submission.members[index]
        places = self._places[_same(member.key, member.outputs)]
        return [*_since_done(places[: places.index((submission, index))]), (submission, index)]


def _since_done(places: Places) -> Places:
    done = [position for position, (one, index) in enumerate(places) if one.members[index].state == "done"]
    return [place for place in places[done[-1] + 1 if done else 0 :] if place[0].job_id is not None]


def _same(key: str, outputs: list[str]) -> tuple[str, ...]:
    return key, *sorted(outputs)
