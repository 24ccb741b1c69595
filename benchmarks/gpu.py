"""What a GPU makes of this program: does it agree with the CPU, does a stopped job resume, how fast, how full is it.

One Markdown table. Rows that compare say what the CPU and the device found, the difference, and how much is allowed;
exit code 1 when one of them is not ok or a section failed. For the comparisons both devices get one set of random
draws, made on the CPU. Throughput is of synthetic images. Sections are processes of their own, each with a time that it
cannot exceed: 8 minutes in all. Needs neither Snakemake nor a network. Its sections are in
gpu_same.py and gpu_speed.py.
Usage: python benchmarks/gpu.py [--device cuda|cpu] [--quick] [--out FILE]
"""

import argparse
import multiprocessing
import os
import platform
import queue
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_same import agreement, resumption
from gpu_speed import Row, Scale, Shape, attacks, side_by_side, throughput

from cem.data.prepare import prepare_data

FULL = Scale(
    shapes=(
        Shape("CIFAR-10", 32, 10, 128, 50_000),
        Shape("FaceScrub", 48, 530, 256, 40_000),
        Shape("Tiny", 64, 200, 256, 100_000),
    ),
    width=0.5,
    images=2560,
    epochs=3,
    small_net="res_normN4C32",
    net="res_normN8C64",
    seconds=2.0,
    processes=(1, 2, 4, 8),
    threads=min(16, os.cpu_count() or 1),
)
QUICK = Scale(
    shapes=(
        Shape("CIFAR-10, few", 32, 10, 8, 64),
        Shape("FaceScrub, few", 48, 53, 8, 530),
        Shape("Tiny, few", 64, 20, 8, 200),
    ),
    width=0.05,
    images=192,
    epochs=2,
    small_net="res_normN1C8",
    net="res_normN1C8",
    seconds=0.1,
    processes=(1, 2),
    threads=1,
    wide=0.05,
)
# By a part of the name, of the larger value. Devices round differently, and every step of SGD makes more of it.
TOLERANCES = {
    "step 1": 1e-4,
    "step 5": 1e-2,
    "leakage, nats": 0.1,
    "epoch": 0.03,
    "mixture": 1e-2,
    "linear": 1e-3,
    "decoder": 0.05,
}


@dataclass(frozen=True)
class Section:
    """Work in processes of their own: as many as `processes`, ended after `seconds`."""

    name: str
    work: Callable[..., Iterator[Any]]
    seconds: int
    settings: dict[str, Any] = field(default_factory=dict)
    processes: int = 1


def sections(scale: Scale) -> list[Section]:
    return [
        Section("numbers of the CPU", agreement, 80, {"own": "cpu"}),
        Section("numbers of the device", agreement, 60, {"own": "device"}),
        Section("resumption", resumption, 60),
        *(Section(f"throughput, {shape.name}", throughput, 50, {"shape": shape}) for shape in scale.shapes),
        Section("attacks", attacks, 40),
        Section("side by side", side_by_side, 75, processes=max(scale.processes)),
    ]


def child(section: Section, settings: dict[str, Any], hidden: bool, results: Any) -> None:
    """The work of one process of a section; what it finds goes into `results`, an error as its traceback."""
    if hidden:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    log = settings["folder"] / f"{section.name} {settings['rank']}.log"
    with log.open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    try:
        for found in section.work(**settings):
            results.put(found)
        results.put(None)
    except Exception:
        results.put(RuntimeError(traceback.format_exc()))


def run(section: Section, scale: Scale, folder: Path, hidden: bool, context: Any) -> Iterator[Any]:
    """What a section finds, as it comes; a failed row, too, where it fails or is not done in its time."""
    results, barrier = context.Queue(), context.Barrier(section.processes)
    shared = {"scale": scale, "folder": folder, "barrier": barrier, **section.settings}
    children = [
        context.Process(target=child, args=(section, shared | {"rank": rank}, hidden, results), daemon=True)
        for rank in range(section.processes)
    ]
    for one in children:
        one.start()
    end, working = time.monotonic() + section.seconds, section.processes
    while working:
        alive = any(one.is_alive() for one in children)  # before the look: what one said before it ended is then seen
        try:
            found = results.get(timeout=0.2)
        except queue.Empty:
            if alive and time.monotonic() < end:
                continue
            found = RuntimeError(f"not done in {section.seconds} s" if alive else "a process ended without a word")
        if isinstance(found, RuntimeError):
            print(found, file=sys.stderr, flush=True)
            yield Row(section.name, device=f"failed: {str(found).strip().splitlines()[-1]}", verdict="NOT OK")
            break
        working -= found is None
        if found is not None:
            yield found
    for one in children:
        one.join(0.5 if working else 10)
        if one.is_alive():
            one.kill()
            one.join()


def compared(name: str, cpu: float, device: float | None) -> Row:
    """A row of a number that must not depend on the device."""
    tolerance = next(allowed for part, allowed in TOLERANCES.items() if part in name)
    if device is None:
        return Row(name, f"{cpu:.6g}", "missing", "", f"{tolerance:g}", "NOT OK")
    difference = abs(device - cpu) / max(abs(cpu), abs(device))
    verdict = "ok" if difference <= tolerance else "NOT OK"  # NaN is not ok
    return Row(name, f"{cpu:.6g}", f"{device:.6g}", f"{difference:.1e}", f"{tolerance:g}", verdict)


def table(rows: Iterable[Row], device: str) -> str:
    head = Row("", "CPU", device, "difference", "allowed", "")
    lines = [f"| {' | '.join(row)} |" for row in (head, Row(*["---"] * len(head)), *rows)]
    return "\n".join(lines) + "\n"


def measure(scale: Scale, folder: Path, on_cpu: bool) -> list[Row]:
    """All sections; each row is printed as it is found."""
    context, began = multiprocessing.get_context("forkserver"), time.monotonic()
    # The processes' parent imports everything once; it is found where this file is.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    context.set_forkserver_preload(["gpu_same"])
    prepare_data(scale.run.dataset, folder / "data.h5")
    todo, rows, of_cpu = sections(scale), [], {}
    for number, section in enumerate(todo, 1):
        left = sum(one.seconds for one in todo[number - 1 :])
        print(
            f"[{time.monotonic() - began:4.0f} s] {number}/{len(todo)} {section.name}; at most {left} s left",
            file=sys.stderr,
            flush=True,
        )
        hidden = on_cpu or section.settings.get("own") == "cpu"
        sums: dict[str, float] = {}
        for found in run(section, scale, folder, hidden, context):
            if isinstance(found, Row):
                rows.append(found)
                print("    " + " | ".join(filter(None, found)), file=sys.stderr, flush=True)
            else:
                sums[found[0]] = sums.get(found[0], 0.0) + found[1]
        if section.settings.get("own") == "cpu":
            of_cpu = sums
        elif section.work is agreement:
            rows += [compared(name, value, sums.get(name)) for name, value in of_cpu.items()]
        else:
            rows += [Row(name, device=f"{rate:,.0f} images/s") for name, rate in sums.items()]
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="a minute on two CPU cores: does it all run")
    parser.add_argument("--out", type=Path, help="file for the table")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.exit("expected a GPU, found none: run it where there is one, or with --device cpu")
    name = torch.cuda.get_device_name(0) if args.device == "cuda" else platform.machine()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(QUICK if args.quick else FULL, Path(folder), args.device == "cpu")
    text = table(rows, f"{name}, torch {torch.__version__}")
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    wrong = [row for row in rows if row.verdict == "NOT OK"]
    for row in wrong:
        print(f"NOT OK: {row.what}: {row.device}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
