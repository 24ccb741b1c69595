"""Where the minutes of a study go: a table of its stages, from nothing to its report, by CPU and by wall seconds.

Runs `snakemake` on a study in an empty folder, as `make study` does. CPU of a stage: of its jobs (Snakemake's own
`benchmark:` files). Of this, start-up: what a process of this stage takes that imports what it needs and ends, times
the number of jobs. Snakemake: the rest of all CPU that was used. Exit code 1 when more than 10 % of the CPU is not
training, attacks or leakage.
Usage: python benchmarks/stages.py [--root CHECKOUT] [--study config/config.yaml] [--cores 2]
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parents[1]
# Name of a job's benchmark file -> its stage, and what a process of the stage imports.
STAGES = {
    r"attack-|baseline_attacks": ("attacks", "cem.evaluation"),
    r"evaluator": ("evaluator", "cem.evaluation"),
    r"warm_up|train": ("training", "cem.training"),
    r"extract_activations": ("activations", "cem.training"),
    r"fit_mixture": ("leakage", "cem.training"),
    r"aggregate": ("aggregate", "cem.report.results"),
    r"report": ("report", "cem.report.page"),
    r"": ("data", "cem.data.prepare"),
}
WORK = ("training", "attacks", "evaluator", "leakage")
ALLOWED = 0.10


@dataclass
class Stage:
    """What the jobs of a stage took together, in seconds."""

    imports: str
    jobs: int = 0
    wall: float = 0.0
    cpu: float = 0.0


def used_cpu() -> float:
    """Seconds of all child processes that have ended."""
    used = os.times()
    return used.children_user + used.children_system


def run_study(root: Path, study: str, cores: int, folder: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a whole study in an empty folder. Raises CalledProcessError where it fails."""
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(folder)]
    words += ["--configfile", str(root / study), "--cores", str(cores), "--quiet", "all"]
    began, before = time.monotonic(), used_cpu()
    subprocess.run(words, check=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})  # -m puts cwd first
    return time.monotonic() - began, used_cpu() - before


def start_up(root: Path, imports: str) -> float:
    """CPU seconds of a process that imports a package and ends; the second of two, when its files are at hand."""
    for _ in range(2):
        before = used_cpu()
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-c", f"import {imports}"], check=True, cwd=root, env=environment)
    return used_cpu() - before


def stages_of(logs: Path) -> dict[str, Stage]:
    """What the benchmark files below a folder say, by stage."""
    found: dict[str, Stage] = {}
    for path in sorted(logs.rglob("*.tsv")):
        name, imports = next(stage for pattern, stage in STAGES.items() if re.search(pattern, path.stem))
        stage = found.setdefault(name, Stage(imports))
        row = pd.read_csv(path, sep="\t").iloc[0]
        stage.jobs, stage.wall, stage.cpu = stage.jobs + 1, stage.wall + float(row["s"]), stage.cpu + row["cpu_time"]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=HERE, help="the checkout whose program is measured")
    parser.add_argument("--study", default="config/config.yaml")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    root = args.root.resolve()
    with tempfile.TemporaryDirectory() as name:
        wall, cpu = run_study(root, args.study, args.cores, Path(name))
        found = stages_of(Path(name) / "logs")
    print("| stage | jobs | wall, s | CPU, s | of this start-up, s | % of all CPU |\n|---|---|---|---|---|---|")
    work = 0.0
    for name, stage in found.items():
        started = start_up(root, stage.imports) * stage.jobs
        work += max(0.0, stage.cpu - started) if name in WORK else 0.0
        cells = (name, stage.jobs, f"{stage.wall:.0f}", f"{stage.cpu:.0f}", f"{started:.0f}")
        print(f"| {' | '.join(map(str, cells))} | {100 * stage.cpu / cpu:.1f} |")
    rest = cpu - sum(stage.cpu for stage in found.values())
    print(f"| Snakemake | | | {rest:.0f} | | {100 * rest / cpu:.1f} |")
    print(f"| all | {sum(stage.jobs for stage in found.values())} | {wall:.0f} | {cpu:.0f} | | 100 |")
    outside = 1 - work / cpu
    print(f"\nNot {', '.join(WORK)}: {100 * outside:.1f} % of the CPU (at most {100 * ALLOWED:.0f} % is allowed).")
    return 0 if outside <= ALLOWED else 1


if __name__ == "__main__":
    sys.exit(main())
