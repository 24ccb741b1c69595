"""Images per second: a folder of JPEGs prepared by `prepare_data` against torchvision's ImageFolder read with PIL.

Seeded images, 32×32, JPEG quality 90, in 10 folders. Preparing is more than reading: it lists, hashes, decodes, turns
upright, divides and writes the HDF5 file; but it decodes in several processes where there are several processors. Each
repeat runs in a process of its own, the two in turn. The median of the ratios counts. Memory is that of all processes,
shared pages counted once. Exit code 1 when the ratio is below 1, or when preparing takes more than 1.5 GB.
Usage: python benchmarks/prepare.py [--images N] [--repeats N]
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

REQUIRED, MOST_MB = 1.0, 1500
DISTINCT = 500  # images; the others are these, shifted


def make_folder(root: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.normal(128, 50, (DISTINCT, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    images = np.clip(coarse + rng.normal(0, 8, coarse.shape), 0, 255).astype(np.uint8)
    for label in range(10):
        (root / f"class{label}").mkdir(parents=True)
    for number in range(count):
        image = np.roll(images[number % DISTINCT], number // DISTINCT, (0, 1))
        Image.fromarray(image).save(root / f"class{number % 10}" / f"{number:06}.jpg", quality=90)


def image_folder(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    start(lambda: [image.size for image, _ in ImageFolder(root)])


def prepare(root: Path) -> None:
    from cem.config import ImageFolderDataset
    from cem.data.prepare import prepare_data

    dataset = ImageFolderDataset(name="small", path=str(root))
    start(lambda: prepare_data(dataset, root.parent / "small.h5"))


def start(work: Callable[[], object]) -> None:
    """Do it and say what it took, without the imports; children that it waited for count, too."""
    before, clock = times(), time.perf_counter()
    work()
    print(json.dumps({"cpu_s": times() - before, "wall_s": time.perf_counter() - clock}))


def times() -> float:
    used = [resource.getrusage(which) for which in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def memory_mb(pid: int) -> float:
    """Of a process and its children, shared pages counted once; 0 once it has ended."""
    total = 0.0
    try:
        for one in [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
    except (OSError, ProcessLookupError):
        pass  # one of them has just ended
    return total


def measured(name: str, folder: Path) -> dict[str, float]:
    """What one of the two took."""
    command = [sys.executable, __file__, "--only", name, "--folder", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, memory_mb(process.pid))
            time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"{name} ended with exit code {process.returncode}")
        assert process.stdout is not None
        return json.loads(process.stdout.read()) | {"peak_mb": peak}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=["image_folder", "prepare"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        {"image_folder": image_folder, "prepare": prepare}[args.only](args.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        make_folder(folder, args.images)
        ratios, peak = [], 0.0
        for _ in range(args.repeats):
            took = {name: measured(name, folder) for name in ("image_folder", "prepare")}
            ratios.append(took["image_folder"]["wall_s"] / took["prepare"]["wall_s"])
            peak = max(peak, took["prepare"]["peak_mb"])
            for name, one in took.items():
                speed = args.images / one["wall_s"]
                print(
                    f"{name:12}: {speed:6.0f} images/s, {one['cpu_s']:5.1f} s of CPU, {one['peak_mb']:4.0f} MB",
                    flush=True,
                )
    ratio = statistics.median(ratios)
    print(
        f"ratio: {ratio:.2f} (median of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}; required: {REQUIRED:g})"
    )
    print(f"peak memory: {peak:.0f} MB (required: at most {MOST_MB})")
    return int(ratio < REQUIRED or peak > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
