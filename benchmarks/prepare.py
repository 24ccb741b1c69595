"""Images per CPU second: a folder of JPEGs by `prepare_data`, and by a plain loop over torchvision's ImageFolder.

Seeded colour images, JPEG quality 90, in 10 folders, brought to 32×32. The plain loop is one process: ImageFolder's
list and its own loader (PIL, converted to RGB), `resize` to 32×32 where images have another size, and into one array.
`prepare_data` does more: it hashes and checks the files, turns them upright, divides them and writes the HDF5 file.
Each repeat runs in a process of its own, the two in turn, imports left out. The median of the ratios counts: of CPU
seconds, as a machine that does other work, too, says little with its clock. Exit code 1 when it is below 1, or when
preparing takes more than 1.5 GB.
Usage: python benchmarks/prepare.py [--images N] [--repeats N] [--side PIXELS]
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
SIDE = 32  # that they are brought to
DISTINCT = 500  # images; the others are these, shifted


def make_folder(root: Path, count: int, side: int) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.normal(128, 50, (DISTINCT, side // 4, side // 4, 3)).repeat(4, 1).repeat(4, 2)
    images = np.clip(coarse + rng.normal(0, 8, coarse.shape), 0, 255).astype(np.uint8)
    for label in range(10):
        (root / f"class{label}").mkdir(parents=True)
    for number in range(count):
        image = np.roll(images[number % DISTINCT], number // DISTINCT, (0, 1))
        Image.fromarray(image).save(root / f"class{number % 10}" / f"{number:06}.jpg", quality=90)


def image_folder(root: Path) -> None:
    from torchvision.datasets import ImageFolder

    def read() -> None:
        dataset = ImageFolder(root)
        images = np.empty((len(dataset), SIDE, SIDE, 3), np.uint8)
        for row, (image, _) in enumerate(dataset):
            images[row] = image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE))

    start(read)


def prepare(root: Path) -> None:
    from cem.config import ImageFolderDataset
    from cem.data.prepare import prepare_data

    Image.init()  # Pillow's readers are imports, too
    dataset = ImageFolderDataset(name="small", path=str(root), side=SIDE)
    dataset.load()
    start(lambda: prepare_data(dataset, root.parent / "small.h5"))


def start(work: Callable[[], object]) -> None:
    """Do it and say what it took, without the imports, and the most memory of the process, with them."""
    cpu, clock = time.process_time(), time.perf_counter()
    work()
    used = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - clock}
    print(json.dumps(used | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def measured(name: str, folder: Path) -> dict[str, float]:
    """What one of the two took."""
    command = [sys.executable, __file__, "--only", name, "--folder", str(folder)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", type=int, default=SIDE, help="of the images in the folder; a multiple of 4")
    parser.add_argument("--only", choices=["image_folder", "prepare"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        {"image_folder": image_folder, "prepare": prepare}[args.only](args.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "images")
        make_folder(folder, args.images, args.side)
        print(f"{args.images} images of {args.side}×{args.side}", flush=True)
        ratios, peak = [], 0.0
        for _ in range(args.repeats):
            took = {name: measured(name, folder) for name in ("image_folder", "prepare")}
            ratios.append(took["image_folder"]["cpu_s"] / took["prepare"]["cpu_s"])
            peak = max(peak, took["prepare"]["peak_mb"])
            for name, one in took.items():
                speed = args.images / one["cpu_s"]
                rest = f"{one['cpu_s']:.2f} s of CPU, {one['wall_s']:.1f} s, {one['peak_mb']:.0f} MB"
                print(f"{name:12}: {speed:5.0f} images/s of CPU; {rest}", flush=True)
    ratio = statistics.median(ratios)
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"ratio: {ratio:.2f} (median of {len(ratios)}, {span}; required: {REQUIRED:g})")
    print(f"peak memory: {peak:.0f} MB (required: at most {MOST_MB})")
    return int(ratio < REQUIRED or peak > MOST_MB)


if __name__ == "__main__":
    sys.exit(main())
