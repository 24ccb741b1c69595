"""What all stages share: the study, checked; the plan; the wildcards, which match what is planned and nothing else."""

import atexit
import gc
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

import cem
from cem.config import parse_study, read_settings
from cem.planning.plan import ATTACK_FILES, Plan
from cem.planning.preflight import (
    check_before_start,
    fingerprint_of,
    network_files,
    started_from,
)
from snakemake import benchmark as benchmarks
from snakemake.exceptions import WorkflowError

# Python's collector of garbage need not walk through what was imported, again and again, nor as Python ends through
# anything: a fifth of the time that `snakemake -n` takes on the default study.
gc.freeze()
atexit.register(gc.freeze)

# Snakemake looks at a job's memory for its `benchmark:` file 30 times at this interval, then twice a minute. At its own, half a
# second, that takes as much CPU time as all else that Snakemake does; what is lost is a peak that lasted less than this.
benchmarks.BENCHMARK_INTERVAL_SHORT = 5

try:
    # Refuses what Snakemake would read without a word, such as a key given twice.
    for path in workflow.configfiles:
        read_settings(path)
    STUDY = parse_study(config, "the study's configuration")
    PLAN = Plan(STUDY)
    check_before_start(PLAN)
except cem.CemError as error:
    raise WorkflowError(str(error)) from None

# Snakemake puts this path unquoted into the commands that run scripts (its issue 2645, open in 9.27), which fails
# where the folder's name holds a space or a quote.
if shlex.quote(sys.executable) != sys.executable and os.path.exists(sys.executable):
    sys.executable = shlex.quote(sys.executable)


# Its commands hold the folder's name between double quotes, where a shell still runs what these characters say.
if set("$`\\") & set(os.getcwd()):
    raise WorkflowError(
        f"Expected a working folder whose path has no $ ` or \\, found {os.getcwd()}: Snakemake would pass it to a "
        "shell. Rename the folder, or work elsewhere with --directory."
    )

# The script takes its shell's place: a signal to both must not end the shell first, and with it Snakemake's patience.
shell.prefix("set -euo pipefail; exec ")


def any_of(names):
    """A wildcard constraint that matches exactly these names."""
    return "|".join(re.escape(name) for name in sorted(names)) or "(?!)"


# Of runs and warm-ups the form alone: Snakemake searches these texts for every file, and thousands of names make it slow.
# Whether one is planned is asked where it is looked up.
BASE = "[^/]+/[^/]+/s[0-9]+-[0-9a-f]+"
RUN = "[^/]+/[^/]+/[^/]+/s[0-9]+-[0-9a-f]+"


wildcard_constraints:
    study=re.escape(STUDY.name),
    dataset=any_of(PLAN.datasets),
    base=BASE,
    run=RUN,
    trained=f"warmup/{BASE}|runs/{RUN}",
    mixture=any_of(PLAN.mixtures),
    attack=any_of(PLAN.learned),


def planned(folder):
    """The run of a folder below the study's, `runs/…` or `warmup/…`."""
    if folder not in PLAN.trained:
        raise WorkflowError(
            f"Expected a run or warm-up of the study {STUDY.name}, found {folder}. The ids of its runs: cem plan."
        )
    return PLAN.trained[folder]


@cache
def sparse_settings(folder):
    """Of a planned folder, made once: all jobs on one run ask for them, and hold the same ones."""
    return planned(folder).sparse()


def settings_of(name):
    """Settings of a planned run or warm-up, from a function of the wildcards to its folder's name."""
    return lambda wildcards: sparse_settings(name(wildcards))


def trained_from(name):
    """Settings of a planned run or warm-up, and what stands for the files that its network comes from, where there are
    any (under no name of a setting)."""

    def settings(wildcards):
        folder = name(wildcards)
        files = network_files(planned(folder))
        return sparse_settings(folder) | ({"network files": files} if files else {})

    return settings


def data_of(name):
    """The prepared data set of a planned run or warm-up."""
    return lambda wildcards: str(PLAN.data(planned(name(wildcards)).dataset))


def evaluator_of(name):
    """What judges reconstructions of a planned run's images."""
    return lambda wildcards: str(PLAN.evaluator(planned(name(wildcards)).dataset))


def dataset_of(name):
    """Settings of a data set, and what stands for its raw files where it has any (under no name of a setting)."""
    fingerprint = fingerprint_of(PLAN, name)
    return PLAN.datasets[name].sparse() | (
        {"raw files": fingerprint} if fingerprint else {}
    )


def threads_of(name):
    """CPU threads that a run's settings fix."""
    return lambda wildcards: planned(name(wildcards)).training.threads


def attack_settings(ids):
    """Settings of the attacks that `ids` names, given the wildcards.

    Of an attack that starts from files, with what stands for their contents (under no name of a setting).
    """
    known = {attack.id: attack.sparse() for attack in STUDY.attacks}

    def settings(wildcards, name):
        files = started_from(PLAN, planned(of_run(wildcards)).id, name)
        return known[name] | ({"weights files": files} if files else {})

    return lambda wildcards: [settings(wildcards, name) for name in ids(wildcards)]


def metric_settings():
    """Settings of the study's own metrics."""
    return [metric.sparse() for metric in STUDY.metrics]


def observations_of(wildcards):
    """How often attackers see one image's z, where more than once. Of a warm-up none: trainings start from its mixture."""
    several = {attack.observations for attack in STUDY.attacks} - {1}
    return sorted(several) if wildcards.trained.startswith("runs/") else []


def what_was_trained(wildcards):
    """Model and data set of a run. Of a warm-up none: its mixture only starts trainings, and measures nothing."""
    if not wildcards.trained.startswith("runs/"):
        return {}
    return {
        "model": f"results/{wildcards.study}/{wildcards.trained}/model.safetensors",
        "data": data_of(of_trained)(wildcards),
    }


def tuned_on_reference(wildcards):
    """What says the learning rate of an attack, where it is found on the undefended reference of the run."""
    path = PLAN.tuned(planned(of_run(wildcards)), wildcards.attack)
    return [] if path is None else [str(path)]


def warmed_up(name):
    """This file of a run's warm-up; none where the network is taken as it is given."""

    def path(wildcards):
        run = planned(of_run(wildcards))
        return str(PLAN.warmup(run) / name) if run.trained else []

    return path


def of_base(wildcards):
    return f"warmup/{wildcards.base}"


def of_run(wildcards):
    return f"runs/{wildcards.run}"


def of_trained(wildcards):
    return wildcards.trained


# Rules give these lists by functions of the wildcards: of a list that it is given, Snakemake holds another copy.
def of_every_run(*names):
    """These files of every planned run."""
    return [f"{PLAN.run(run)}/{name}" for run in PLAN.runs.values() for name in names]


def of_every_attack(*names):
    """These files of every attack on every planned run."""
    folders = [
        PLAN.attack(run, attack.id)
        for run in PLAN.runs.values()
        for attack in PLAN.attacks(run)
    ]
    return [f"{folder}/{name}" for folder in folders for name in names]


def everything():
    """Every file the study plans. Naming them all lets Snakemake notice when one of them is gone."""
    starts = {
        path
        for run in PLAN.runs.values()
        if (path := PLAN.start_mixture(run)) is not None
    }
    warm = [
        PLAN.warmup(run) / name
        for run in PLAN.warmups.values()
        for name in ("model.safetensors", "history.csv")
    ]
    measured = [PLAN.leakage(run) for run in PLAN.runs.values()]
    judges = PLAN.datasets.values() if STUDY.attacks else []
    evaluators = [
        PLAN.evaluator(dataset).with_suffix(suffix)
        for dataset in judges
        for suffix in (".safetensors", ".json")
    ]
    paths = [
        PLAN.report,
        # Absent after a report of what was finished: then both are made again, although the report is there.
        PLAN.folder / "results.parquet",
        *map(PLAN.data, PLAN.datasets.values()),
        *evaluators,
        *warm,
        *starts,
        *measured,
    ]
    paths += [path.parent / "activations.h5" for path in sorted(starts)]
    return [
        *sorted({str(path) for path in paths}),
        *of_every_run(
            "model.safetensors", "history.csv", "train.json", "activations.h5"
        ),
        *of_every_attack(*ATTACK_FILES),
    ]


def tell_where_the_report_is():
    """The last line of a run that made something."""
    if PLAN.report.exists():
        print(f"report: {PLAN.report.absolute()}", file=sys.stderr)


def study_file():
    """The study's file, as a command in this folder names it; None where there are several."""
    if len(workflow.configfiles) != 1:
        return None
    path = Path(workflow.configfiles[0])
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def report_what_is_finished():
    """After a failed job: the report of what is finished, and the runs that are not. An interruption makes none."""
    scheduler = getattr(workflow, "scheduler", None)
    if not getattr(scheduler, "failed", True):
        return
    # Seconds, which a study without failures does not need.
    from cem.report.finished import describe, report_finished

    try:
        missing = report_finished(PLAN, at_work=False, file=study_file())
    except cem.CemError as error:
        print(f"no report of what is finished: {error}", file=sys.stderr)
    else:
        print(describe(PLAN, missing), file=sys.stderr)
