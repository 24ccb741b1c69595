"""A study in a pool of processes that each keep their libraries and their device: for a machine lent by the minute.

Calls what the workflow's scripts call, in the workflow's folders; afterwards `snakemake` finds the jobs done and only
makes the report. Nobody restarts what fails here, and nothing is booked: where hours are at hand, use Snakemake. The
prepared data and the evaluator must be there (`snakemake ... --until fit_evaluator`). The undefended references come
first, since every row's verdict rests on them, then one seed after another. `--seconds` ends it; what is unfinished
then goes on when the command is given again. `--kept`: leave out runs whose rows are in a file of `defenses.py --keep`.
Usage: python benchmarks/pool.py STUDY.yaml... [--processes N] [--seconds N] [--results results] [--kept ROWS.csv...]
"""

import argparse
import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from pathlib import Path

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


def runs_left(plan: Plan, base: str, kept: set[str]) -> list[Run]:
    """The runs of a warm-up that are to be measured: references always are."""
    return [run for run in plan.runs.values() if run.base == base and (run.id not in kept or plan.is_reference(run))]


def work(
    tasks: "multiprocessing.Queue[tuple[str, str] | None]",
    told: "multiprocessing.Queue[str]",
    results: str,
    kept: set[str],
) -> None:
    """A process of the pool: takes a warm-up with its runs, one after another, until there is none."""
    plans: dict[str, Plan] = {}
    while (task := tasks.get()) is not None:
        path, base = task
        plan = plans.setdefault(path, Plan(load_study(path), results))
        runs = runs_left(plan, base, kept)
        began = time.monotonic()
        try:
            warmed_up(plan, plan.warmups[base], {start for run in runs if (start := plan.start_mixture(run))})
            for run in runs:
                measured(plan, run)
                told.put(f"{run.id}: done {time.monotonic() - began:.0f} s after its warm-up began")
        except CemError as error:
            told.put(f"FAILED {base}: {error}")
        except Exception:
            told.put(f"FAILED {base}\n{traceback.format_exc()}")
    told.put("")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", nargs="+")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--results", default="results")
    parser.add_argument("--kept", nargs="+", default=[], help="CSV files with a column run")
    options = parser.parse_args()
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")
    tasks, told = context.Queue(), context.Queue()
    total = 0
    kept = {run for path in options.kept for run in pd.read_csv(path)["run"]}
    for path in options.studies:
        plan = Plan(load_study(path), options.results)
        if any(plan.tuned(run, attack.id) for run in plan.runs.values() for attack in plan.attacks(run)):
            parser.error(f"{path}: expected attacks with a learning rate, found one that is tuned on the reference")
        chosen = {base: runs for base in plan.warmups if (runs := runs_left(plan, base, kept))}
        of_references = {base for base, runs in chosen.items() if any(map(plan.is_reference, runs))}
        for base in sorted(chosen, key=lambda name: (name not in of_references, plan.warmups[name].seed)):
            tasks.put((path, base))
        total += sum(map(len, chosen.values()))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes of the pool end, too
    words = (tasks, told, options.results, kept)
    pool = [context.Process(target=work, args=words, daemon=True) for _ in range(options.processes)]
    for process in pool:
        tasks.put(None)
        process.start()
    done = failed = ended = 0
    while ended < len(pool):
        left = options.seconds - (time.monotonic() - began)
        if left <= 0:
            break
        try:
            line = told.get(timeout=min(left, 5.0))
        except queue.Empty:
            continue
        ended += line == ""
        failed += line.startswith("FAILED")
        done += ": done" in line
        if line:
            print(f"{time.monotonic() - began:.0f} s, {done} of {total}, {failed} failed: {line}", flush=True)
    for process in pool:
        process.terminate()
    return 0 if done == total else 1


if __name__ == "__main__":
    sys.exit(main())
