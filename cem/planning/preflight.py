"""What can be known to be wrong before any job starts."""

import os
from functools import cache
from pathlib import Path

from cem.config import AttackSettings, Run, load
from cem.config.imports import expanded
from cem.data.check import Counted, check_attack, check_files, check_run, count_prepared
from cem.data.fingerprint import fingerprint, prepared_from
from cem.planning.plan import Plan
from cem.storage.files import StoreError, sha256
from cem.storage.job_records import AttackRecord
from cem.storage.records import read_record
from cem.storage.weights import WeightsError, read_header


def check_before_start(plan: Plan) -> list[str]:
    """What the user should know of the data: what was left out of it, and what was decided.

    Raises DataError when a raw file is absent or damaged, or holds too few images for what is asked of it;
    ModelError when a network cannot be built or cut as it is to be, SurrogateError when an attention module would be
    too large, ConfigError when a metric lacks a file or a package,
    WeightsError when a file that an attack starts from is absent or of another network, StoreError when the results
    cannot be written.

    Once a data set is prepared, its raw files are not needed any more; once all attacks are scored, no metric is, and
    no file of weights that they started from.
    """
    for run in plan.runs.values():
        if run.surrogate.checks_size:
            load("cem.surrogates.check:check_surrogate")(run)  # by name: torch takes seconds, and few studies need it
    counted = {name: _count(plan, name) for name in plan.datasets}
    _check_networks(plan, counted)
    notes = _check_images(plan, counted)
    if not _all_scored(plan):
        for metric in plan.study.metrics:
            metric.check()
    _check_weights(plan)
    nearest = next(folder for folder in [plan.folder, *plan.folder.parents, Path.cwd()] if folder.exists())
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(
            f"{nearest}: results go here, but this user may not write to it. Change its permissions, or work elsewhere "
            "with snakemake --directory."
        )
    return notes


@cache
def fingerprint_of(plan: Plan, name: str) -> str:
    """What stands for the raw files of a data set, by its id; looked at once, as there may be 200,000 of them."""
    return fingerprint(plan.datasets[name], plan.data(plan.datasets[name]))


@cache
def started_from(plan: Plan, name: str, attack: str) -> dict[str, str]:
    """Of an attack on a run, setting → SHA-256 of the file of weights that it names.

    Where that file is gone, of the one that its result says it started from.
    """
    run, cfg = plan.runs[name], next(cfg for cfg in plan.study.attacks if cfg.id == attack)
    used = _used(plan, run, cfg) if cfg.starts else {}
    return {one.setting: _digest(one.path) if Path(one.path).exists() else used[one.setting] for one in cfg.starts}


@cache
def _digest(path: str) -> str:
    return sha256(path)


def _used(plan: Plan, run: Run, attack: AttackSettings) -> dict[str, str]:
    """Setting → SHA-256 of the file of weights that a result says it started from, where the setting names it still."""
    path = plan.attack(run, attack.id) / "attack.json"
    found = read_record(path, AttackRecord, "attack").started_from if path.exists() else []
    named = {(one.setting, one.path) for one in attack.starts}
    return {one.setting: one.sha256 for one in found if (one.setting, one.path) in named}


def _check_weights(plan: Plan) -> None:
    """Whether every network that starts from a file can, on every run that has no result yet or may get another."""
    for attack in plan.study.attacks:
        _check_masks(plan, attack)
    known = set()
    for run in plan.runs.values():
        for attack in plan.attacks(run):
            gone = [one for one in attack.starts if not Path(one.path).exists()]
            used = _used(plan, run, attack) if gone else {}
            for one in gone:
                if one.setting not in used:
                    read_header(one.path)  # which says what is expected there
            masked = any(defense.masks for defense in run.defenses)
            key = (attack.id, run.model, run.dataset.side, run.dataset.channels, masked)
            if attack.starts and not gone and key not in known:
                known.add(key)
                load("cem.attacks.weights:check_starts")(run, attack)  # by name: see check_before_start


def _check_masks(plan: Plan, attack: AttackSettings) -> None:
    """Raise WeightsError where one file has to serve runs that hide values of z, and runs that hide none."""
    reading = [one for one in attack.starts if one.of_z]
    attacked = [run for run in plan.runs.values() if any(one.id == attack.id for one in plan.attacks(run))]
    hiding = [run for run in attacked if any(defense.masks for defense in run.defenses)]
    if reading and hiding and len(hiding) < len(attacked):
        raise WeightsError(
            f"{attack.id}: {reading[0].setting} names one file for all runs, but {hiding[0].id} hides values of z, and "
            "others do not, such as the undefended references, which the attack must invert, too. A network reads one "
            "or the other: leave the setting out. (A prior, of prior_search, reads no z, and serves both.)"
        )


def network_files(run: Run) -> dict[str, str]:
    """Path → SHA-256 of the files that a run's network comes from. Raises StoreError where one is absent."""
    return {path: _digest(str(expanded(path))) for path in run.model.files}


def _check_networks(plan: Plan, counted: dict[str, Counted | None]) -> None:
    """Whether the networks that settings alone do not know can be built and attacked, and their weights loaded.

    The latter only where the classes are known: data that is still to be downloaded says them later.
    """
    known = set()
    for run in plan.runs.values():
        key = (run.model, run.dataset.id, run.trained, run.defenses)
        if run.model.needs_network and key not in known:
            known.add(key)
            found = counted[run.dataset.id]
            classes = None if found is None else len(found.class_names)
            load("cem.models.check:check_model")(run, plan.study.attacks, classes)  # by name: see check_before_start


def _count(plan: Plan, name: str) -> Counted | None:
    """From the prepared data, unless that will be made anew."""
    dataset = plan.datasets[name]
    path = plan.data(dataset)
    if path.exists() and prepared_from(path) in (None, fingerprint_of(plan, name)):
        return count_prepared(path)
    return check_files(dataset)


def _check_images(plan: Plan, found: dict[str, Counted | None]) -> list[str]:
    """Whether every data set has what the runs on it, and the attacks on these, need; notes on them."""
    for name, known in found.items():
        if known is not None:
            for attack in plan.study.attacks:
                check_attack(attack, plan.datasets[name], known)
    for run in plan.runs.values():
        known = found[run.dataset.id]
        if known is not None:
            check_run(run, known)
    return [
        f"{plan.datasets[name].name}: {note}"
        for name, known in found.items()
        for note in (() if known is None else known.notes)
    ]


def _all_scored(plan: Plan) -> bool:
    scores = (
        plan.attack(run, attack.id) / "metrics.parquet" for run in plan.runs.values() for attack in plan.attacks(run)
    )
    return all(path.exists() for path in scores)
