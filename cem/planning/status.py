"""How far each run of a study is: waiting, running, failed, done, or done with other settings than now.

Read from files alone, without torch or pandas: what each step makes, its log, and the state of what is unfinished.
Snakemake takes a job's files away before it starts it, and a job empties its log first. So a step's last attempt failed
where its log ends with an error (`ErrorType: message`, see `cem.jobs.script`) and a file that it makes is absent or
older than the log; or where the log ends with neither an error nor `done`, and no workflow is at work here.
"""

import json
import re
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cem import ATTACK_NUMERICS, NUMERICS
from cem.config import Run
from cem.jobs.attempts import FILE as ATTEMPTS
from cem.jobs.attempts import HEARTBEAT
from cem.jobs.script import DONE
from cem.jobs.work import read_work
from cem.planning.plan import Plan
from cem.planning.steps import LOGS, STOPPED, Step, steps_of
from cem.storage.files import sha256

LOCKS = Path(".snakemake/locks")  # not empty while a workflow is at work in this folder
ALIVE_S = 120.0  # a job whose last sign of life is younger than this is running
_TAIL = 20_000  # bytes of a log that are looked at
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Interrupt|Exit): .*", re.MULTILINE)
_EPOCH, _LEFT = re.compile(r"epoch (\d+)(?:/(\d+))?"), re.compile(r"(\d+) s left")
MOST_CHARACTERS = 300  # of a cause


class State(StrEnum):
    """Of a run. CHANGED: done, with other settings or another version's numbers than now."""

    WAITING = "waiting"
    RUNNING = "running"
    FAILED = "failed"
    DONE = "done"
    CHANGED = "done with other settings"


@dataclass(frozen=True)
class RunStatus:
    """Of one run. rule: the step that runs or failed. cause, log: of a failure; cause also says what has changed.

    epoch, epochs: of what runs; eta_s: seconds it still takes by its own estimate. None: not known.
    """

    run: str
    state: State
    rule: str = ""
    cause: str = ""
    log: str = ""
    epoch: int | None = None
    epochs: int | None = None
    eta_s: float | None = None

    @property
    def text(self) -> str:
        """In a few words: `running: train, epoch 3 of 14, about 62 s left`."""
        parts = [self.rule] if self.rule else []
        if self.epoch is not None:
            parts.append(f"epoch {self.epoch}" + (f" of {self.epochs}" if self.epochs is not None else ""))
        parts += [] if self.eta_s is None else [f"about {self.eta_s:.0f} s left"]
        parts += [self.cause] if self.cause else []
        return f"{self.state}: {', '.join(parts)}" if parts else str(self.state)


@dataclass(frozen=True)
class Unfinished:
    """State of an interrupted or running job of this study. makes: what it is of. alive: it gave a sign of life."""

    folder: Path
    makes: Path
    alive: bool


def study_status(plan: Plan, *, at_work: bool | None = None, logs: Path = LOGS) -> list[RunStatus]:
    """Of every run, in the plan's order. at_work: whether a workflow is, in this folder; absent: look at its locks."""
    at_work = any(LOCKS.glob("*")) if at_work is None else at_work
    alive = {one.makes for one in unfinished(plan) if one.alive}
    known: dict[Path, RunStatus | None] = {}  # by log: runs share their first steps
    return [_status(plan, name, run, alive, at_work, logs, known) for name, run in plan.runs.items()]


def unfinished(plan: Plan) -> list[Unfinished]:
    """The states of this study's unfinished jobs, by what they make."""
    found = []
    for folder in sorted(plan.root.glob(".state/*/")):
        makes = read_work(folder)
        if makes is not None and makes.is_relative_to(plan.folder):
            found.append(Unfinished(folder, makes, is_alive(folder)))
    return sorted(found, key=lambda one: one.makes)


def is_alive(folder: Path) -> bool:
    """Whether a job gave a sign of life a moment ago, and has not said since that it ended."""
    try:
        attempts = json.loads((folder / ATTEMPTS).read_text(encoding="utf-8"))
        ended = attempts[-1]["ended"]
    except (OSError, ValueError, LookupError, TypeError):
        ended = ""  # damaged: the job itself says so when it is started again
    return not ended and time.time() - _modified(folder / HEARTBEAT) < ALIVE_S


def newer_than_report(plan: Plan, logs: Path = LOGS) -> list[str]:
    """Runs with a file that is newer than the report; none where there is no report."""
    made = _modified(plan.report)
    if not made:
        return []
    files = {name: [path for step in steps_of(plan, name, run, logs) if step.own for path in step.outputs]
             for name, run in plan.runs.items()}  # fmt: skip
    return [name for name, paths in files.items() if any(_modified(path) > made for path in paths)]


def last_error(log: Path) -> str | None:
    """The error that a log ends with, on one line; empty: it ends well, or was stopped on request; None: neither."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode("utf-8", errors="replace").strip()
    except OSError:
        return ""
    last = text.rsplit("\n", 1)[-1]
    if last == DONE or last.startswith(STOPPED):
        return ""
    errors = list(_ERROR.finditer(text))
    if not errors:
        return None
    cause = " ".join(text[errors[-1].start() :].split())
    return cause if len(cause) <= MOST_CHARACTERS else cause[: MOST_CHARACTERS - 1] + "…"


def _status(
    plan: Plan,
    name: str,
    run: Run,
    alive: set[Path],
    at_work: bool,
    logs: Path,
    known: dict[Path, RunStatus | None],
) -> RunStatus:
    found: list[RunStatus] = []
    absent = False
    for step in steps_of(plan, name, run, logs):
        if step.own or step.log not in known:
            known[step.log] = _of_step(name, step, alive, at_work)
        status = known[step.log]
        if status is not None:
            absent = True
            found.append(RunStatus(**{**vars(status), "run": name}))
    if not absent:
        changed = _changed(plan, name, run)
        return RunStatus(name, State.CHANGED, cause=changed) if changed else RunStatus(name, State.DONE)
    order = (State.FAILED, State.RUNNING, State.WAITING)
    return min(found, key=lambda status: order.index(status.state))


def _of_step(name: str, step: Step, alive: set[Path], at_work: bool) -> RunStatus | None:
    """None: done."""
    made = [_modified(path) for path in step.outputs]
    error = "" if all(made) and _modified(step.log) <= max(made) else last_error(step.log)
    if all(made) and not error:
        return None
    if alive & {step.outputs[0], step.outputs[0].parent}:
        return _running(name, step)
    if error is None:
        if at_work:
            return _running(name, step)
        error = "ended without a message: stopped, killed, or out of memory"
    if error:
        return RunStatus(name, State.FAILED, step.rule, error, str(step.log))
    return RunStatus(name, State.WAITING)


def _running(name: str, step: Step) -> RunStatus:
    """With the epoch and the seconds left that its log says last."""
    try:
        lines = step.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    line = next((line for line in reversed(lines) if _EPOCH.search(line)), "")
    epoch, left = _EPOCH.search(line), _LEFT.search(line)
    return RunStatus(
        name,
        State.RUNNING,
        step.rule,
        log=str(step.log),
        epoch=int(epoch[1]) if epoch else None,
        epochs=int(epoch[2]) if epoch and epoch[2] else None,
        eta_s=float(left[1]) if left else None,
    )


def _changed(plan: Plan, name: str, run: Run) -> str:
    """What results were made with that is not so now, in words; empty: nothing."""
    place, found = plan.folder / "runs" / name, []
    if _json(place / "train.json").get("numerics") != NUMERICS:
        found.append("the training is of another version's numerics")
    made_of = _json(place / "train.json").get("files", {})
    if any(Path(path).exists() and sha256(path) != digest for path, digest in made_of.items()):
        found.append("the network's own files are others now")
    for attack in plan.attacks(run):
        about, expected = _json(place / "attacks" / attack.id / "attack.json"), attack
        if plan.tuned(run, attack.id) is not None and {"lr", "net", "loss"} <= about.get("choices", {}).keys():
            expected = attack.tuned(about["choices"])  # found on the reference
        if about.get("settings") != json.loads(json.dumps(expected.sparse())):
            found.append(f"{attack.id} has other settings")
        elif about.get("numerics") != [NUMERICS, ATTACK_NUMERICS]:
            found.append(f"{attack.id} is of another version's numerics")
        used = {one["setting"]: one["sha256"] for one in about.get("started_from", [])}
        there = [one for one in attack.starts if Path(one.path).exists()]
        if any(sha256(one.path) != used.get(one.setting) for one in there):
            found.append(f"{attack.id} started from other weights")
    return "; ".join(found)


def _json(path: Path) -> dict[str, Any]:
    """A record, empty where it is not readable: what is damaged is told by the report."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _modified(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
