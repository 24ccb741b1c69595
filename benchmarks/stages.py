"""Where the minutes of a study go: a table of its stages, from nothing to its report, by CPU and by wall seconds.

Runs `snakemake` on a study in an empty folder, as `make study` does. Wall of a stage: of its jobs, by Snakemake's own
`benchmark:` files. CPU: as each job's process tells it when it ends (those files miss up to the last 30 s of a job).
Of this, start-up: what a process of this stage takes that imports what it needs and ends, times the number of jobs.
Snakemake: the rest of all CPU that was used. Exit code 1 when more than 10 % of the CPU is not training (the
evaluator's, too), attacks or leakage.
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

# What every Python below the measured command runs when it starts, from a folder on PYTHONPATH.
NOTE_CPU = """
import atexit, os, sys

def note():
    if "/.snakemake/scripts/" in sys.argv[0]:
        with open(os.environ["STAGES_CPU"], "a") as file:
            file.write(f"{os.path.basename(sys.argv[0])}\\t{sum(os.times()[:4])}\\n")

atexit.register(note)
"""
# As a job's script does it.
START = "import gc\nfrom cem.jobs.script import imports\nwith imports(): import {}\ngc.freeze()"
START_BEFORE_6EAFA4F = "import {}"
HERE = Path(__file__).resolve().parents[1]
# Name of a job's benchmark file, or of its script -> its stage, and what a process of the stage imports.
STAGES = {
    r"attack": ("attacks", "cem.evaluation"),
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


def run_study(root: Path, study: str, cores: int, folder: Path, note: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a whole study in an empty folder. Raises CalledProcessError where it fails.

    note: a folder, for what the jobs' processes tell.
    """
    (note / "sitecustomize.py").write_text(NOTE_CPU)
    words = [sys.executable, "-m", "snakemake", "--snakefile", str(root / "Snakefile"), "--directory", str(folder)]
    words += ["--configfile", str(root / study), "--cores", str(cores), "--quiet", "all"]
    began, before = time.monotonic(), used_cpu()
    told = {"PYTHONPATH": f"{note}{os.pathsep}{root}", "STAGES_CPU": str(note / "cpu.tsv")}
    subprocess.run(words, check=True, cwd=root, env=os.environ | told)  # cwd: -m puts it first
    return time.monotonic() - began, used_cpu() - before


def start_up(root: Path, imports: str) -> float:
    """CPU seconds of a process that imports a package and ends; the second of two, when its files are at hand."""
    for _ in range(2):
        before = used_cpu()
        environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        known = "def imports" in (root / "cem/jobs/script.py").read_text(encoding="utf-8")
        code = (START if known else START_BEFORE_6EAFA4F).format(imports)
        subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env=environment)
    return used_cpu() - before


def stages_of(logs: Path, note: Path) -> dict[str, Stage]:
    """What the benchmark files below a folder, and the jobs' processes, say, by stage."""
    found: dict[str, Stage] = {}

    def stage_of(name: str) -> Stage:
        stage, imports = next(stage for pattern, stage in STAGES.items() if re.search(pattern, name))
        return found.setdefault(stage, Stage(imports))

    for path in sorted(logs.rglob("*.tsv")):
        stage, row = stage_of(path.stem), pd.read_csv(path, sep="\t").iloc[0]
        stage.jobs, stage.wall = stage.jobs + 1, stage.wall + float(row["s"])
    for line in (note / "cpu.tsv").read_text().splitlines():
        name, seconds = line.split("\t")
        stage_of(name).cpu += float(seconds)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, default=HERE, help="the checkout whose program is measured")
    parser.add_argument("--study", default="config/config.yaml")
    parser.add_argument("--cores", type=int, default=2)
    args = parser.parse_args()
    root = args.root.resolve()
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as note:
        wall, cpu = run_study(root, args.study, args.cores, Path(name), Path(note))
        found = stages_of(Path(name) / "logs", Path(note))
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
