"""A study in a pool of processes that each keep their libraries and their device: for a machine lent by the minute.

Calls what the workflow's scripts call, in the workflow's folders; afterwards `snakemake` finds the jobs done and only
makes the report. Nobody restarts what fails here, and nothing is booked: where hours are at hand, use Snakemake. The
prepared data and the evaluator must be there (`snakemake ... --until fit_evaluator`). The undefended references come
first, since every row's verdict rests on them, then one seed after another; a run starts once its warm-up is done.
`--seconds` ends it; what is unfinished then goes on when the command is given again. `--kept`: leave out runs whose
rows are in a file of `defenses.py --keep` or `answer.py --keep`; in the latter a run is whole that has all attacks.
Usage: python benchmarks/pool.py STUDY.yaml... [--processes N] [--seconds N] [--results results] [--kept ROWS.csv...]
"""

import argparse
import functools
import heapq
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from cem import CemError
from cem.config import Run, load_study
from cem.planning.plan import ATTACK_FILES, Plan


def warmed_up(plan: Plan, base: Run, starts: set[Path]) -> None:
    """A warm-up, and the mixtures that its runs' surrogates start from."""
    from cem.training import extract_activations, measure_mixture, warm_up

    folder, data = plan.warmup(base), plan.data(base.dataset)
    model, activations = folder / "model.safetensors", folder / "activations.h5"
    if not (folder / "history.csv").exists():
        warm_up(base, data, model, folder / "history.csv", plan.root)
    for start in sorted(path for path in starts if not path.exists()):
        if not activations.exists():
            extract_activations(base, data, model, "warm_up", plan.study.smashed_dtype, activations)
        fit = next(fit for label, fit in plan.mixtures.items() if start.name == f"mixture-{label}.h5")
        measure_mixture(base, fit, activations=activations, out=start)


def measured(plan: Plan, run: Run) -> None:
    """A run, trained, measured and attacked."""
    from cem.evaluation import attack_run
    from cem.training import extract_activations, measure_mixture, train

    folder, data, warm = plan.run(run), plan.data(run.dataset), plan.warmup(run)
    model, activations, leakage = folder / "model.safetensors", folder / "activations.h5", plan.leakage(run)
    if not (folder / "train.json").exists():
        started = plan.start_mixture(run)
        train(run, data, warm / "model.safetensors", warm / "history.csv", started, folder, plan.root)
    if not activations.exists():
        extract_activations(run, data, model, "model", plan.study.smashed_dtype, activations)
    if not leakage.exists():
        observations = sorted({attack.observations for attack in plan.study.attacks} - {1})
        fit = plan.study.leakage
        measure_mixture(
            run, fit, activations=activations, out=leakage, observations=observations, data=data, model=model
        )
    planned = plan.attacks(run)
    alone = [[attack] for attack in planned if attack.trained]
    for attacks in [[attack for attack in planned if not attack.trained], *alone]:
        if all((plan.attack(run, attack.id) / name).exists() for attack in attacks for name in ATTACK_FILES):
            continue
        attack_run(
            run,
            attacks,
            activations=activations,
            data=data,
            model=model,
            evaluator=plan.evaluator(run.dataset),
            tuned=plan.tuned(run, attacks[0].id),
            folder=folder / "attacks",
            num_images=plan.study.report.images,
            metrics=plan.study.metrics,
        )


class Task(NamedTuple):
    """What a process does at a time; tasks are done in their order."""

    is_late: bool  # references, and the warm-ups that they start from, come first
    seed: int
    is_run: bool
    number: int  # in the study
    study: str
    id: str  # of a warm-up, or of a run


@functools.lru_cache
def planned(study: str, results: str) -> Plan:
    return Plan(load_study(study), results)


def done(task: Task, results: str, kept: set[str]) -> None:
    """A warm-up with its mixtures, or a run; in a process of the pool."""
    plan = planned(task.study, results)
    try:
        if task.is_run:
            measured(plan, plan.runs[task.id])
        else:
            runs = runs_left(plan, task.id, kept)
            warmed_up(plan, plan.warmups[task.id], {start for run in runs if (start := plan.start_mixture(run))})
    except SystemExit as stopped:  # on request, its state saved; the pool would take it for one more result
        sys.stderr.flush()
        os._exit(int(stopped.code or 0))


def runs_left(plan: Plan, base: str, kept: set[str]) -> list[Run]:
    """The runs of a warm-up that are to be measured: references always are."""
    return [run for run in plan.runs.values() if run.base == base and (run.id not in kept or plan.is_reference(run))]


def kept_runs(path: str, plans: Sequence[Plan]) -> set[str]:
    """Runs of which this file has all attacks that a study plans."""
    rows = pd.read_csv(path)
    if "attack_ok" not in rows:  # written by defenses.py: the strongest attack alone, of runs that are whole
        return set(rows["run"])
    attacks = rows.groupby("run")["attack"].agg(set)
    runs = {run.id: {attack.id for attack in plan.attacks(run)} for plan in plans for run in plan.runs.values()}
    return {run for run, found in attacks.items() if found >= runs.get(str(run), found)}


def warmup_tasks(study: str, results: str, kept: set[str]) -> list[Task]:
    plan, tasks = planned(study, results), []
    for number, (base, warmup) in enumerate(plan.warmups.items()):
        if runs := runs_left(plan, base, kept):
            tasks.append(Task(not any(map(plan.is_reference, runs)), warmup.seed, False, number, study, base))
    return tasks


def run_tasks(warmup: Task, results: str, kept: set[str]) -> list[Task]:
    """What may start once a warm-up is done."""
    plan = planned(warmup.study, results)
    numbers = {run: number for number, run in enumerate(plan.runs)}
    return [
        Task(not plan.is_reference(run), run.seed, True, numbers[run.id], warmup.study, run.id)
        for run in runs_left(plan, warmup.id, kept)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--results", default="results")
    parser.add_argument("--kept", nargs="+", default=[], help="CSV files with a column run")
    options = parser.parse_args()
    began = time.monotonic()
    plans = [planned(study, options.results) for study in options.studies]
    kept = {run for path in options.kept for run in kept_runs(path, plans)}
    for path, plan in zip(options.studies, plans, strict=True):
        if any(plan.tuned(run, attack.id) for run in plan.runs.values() for attack in plan.attacks(run)):
            parser.error(f"{path}: expected attacks with a learning rate, found one that is tuned on the reference")
    ready = [task for path in options.studies for task in warmup_tasks(path, options.results, kept)]
    total = sum(len(run_tasks(task, options.results, kept)) for task in ready)
    heapq.heapify(ready)
    finished = failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of the pool end, too
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(options.processes, mp_context=context)
    running: dict[Future[None], tuple[Task, float]] = {}
    try:
        while (ready or running) and (left := options.seconds - (time.monotonic() - began)) > 0:
            while ready and len(running) < options.processes:
                task = heapq.heappop(ready)
                running[pool.submit(done, task, options.results, kept)] = task, time.monotonic()
            for future in wait(running, min(left, 5.0), FIRST_COMPLETED).done:
                task, started = running.pop(future)
                words = f"done in {time.monotonic() - started:.0f} s"
                if error := future.exception():
                    failed += 1
                    whole = "".join(traceback.format_exception(error))
                    words = f"FAILED: {error if isinstance(error, CemError) else whole}"
                elif task.is_run:
                    finished += 1
                else:
                    for run in run_tasks(task, options.results, kept):
                        heapq.heappush(ready, run)
                clock = f"{time.monotonic() - began:.0f} s, {finished} of {total} runs, {failed} failed"
                print(f"{clock}: {task.id}: {words}", flush=True)
    finally:
        pool.shutdown(wait=not running, cancel_futures=True)
        for process in multiprocessing.active_children():  # of a time that is up: they save what they do
            process.terminate()
    return 0 if finished == total else 1


if __name__ == "__main__":
    sys.exit(main())
