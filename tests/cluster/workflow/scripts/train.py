"""Stands for a training: epochs that take time, a state saved after each, a start that resumes, signals obeyed.

starts.log has every start, epochs.log every epoch that was trained to its end.

Options of a run (runs.json), all optional:
    epochs, epoch_s      how many, and how long one takes
    periodic             false: the state is saved on a signal only
    save_s               how long saving on a signal takes
    ignore_signals       true: SIGUSR2 and SIGTERM do nothing
    fail_at, fail_starts raise an error at this epoch; only in the first so many starts
    allocate_mb          hold this much memory, once two epochs are trained
    write_to             append a line to this file at every start
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

run, options = snakemake.wildcards.run, snakemake.params.options
state_file = Path(f"state/{run}.json")  # not an output: Snakemake deletes those before a rerun
environment = os.environ.get


def write_whole(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def append(path: Path, content: dict) -> None:
    """One write, whole whoever else writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(content) + "\n")


signals: list[int] = []
for number in (signal.SIGUSR2, signal.SIGTERM):
    ignore = options.get("ignore_signals")
    signal.signal(number, signal.SIG_IGN if ignore else lambda number, frame: signals.append(number))

state = json.loads(state_file.read_text()) if state_file.exists() else {}
if state.get("options") != options:
    state = {"options": options, "epoch": 0, "starts": [], "signals": []}
state["starts"].append(state["epoch"])
array, element = environment("SLURM_ARRAY_JOB_ID"), environment("SLURM_ARRAY_TASK_ID")
start = {
    "run": run,
    "epoch": state["epoch"],
    "job": f"{array}_{element}" if array else environment("SLURM_JOB_ID"),
    "restarts": int(environment("SLURM_RESTART_COUNT", "0")),
    "gpus": environment("CUDA_VISIBLE_DEVICES"),
    "node": environment("SLURMD_NODENAME"),
    "pid": os.getpid(),
    "time": time.time(),
}
append(Path("starts.log"), start)
if options.get("write_to"):
    append(Path(options["write_to"]), start)

memory = bytearray()
while state["epoch"] < options.get("epochs", 4):
    end = time.monotonic() + options.get("epoch_s", 0.5)
    if options.get("allocate_mb") and not memory and state["epoch"] >= 2:
        memory = bytearray(b"\1") * (options["allocate_mb"] << 20)
    while not signals and time.monotonic() < end:
        time.sleep(0.05)
    if signals:
        time.sleep(options.get("save_s", 0))
        state["signals"] += [signal.Signals(number).name for number in signals]
        write_whole(state_file, state)
        sys.exit(75)
    state["epoch"] += 1
    if options.get("fail_at") == state["epoch"] and len(state["starts"]) <= options.get("fail_starts", 1_000_000):
        write_whole(state_file, {**state, "epoch": state["epoch"] - 1})
        raise ValueError(f"run {run} is broken on purpose at epoch {state['epoch']}")
    if options.get("periodic", True):
        write_whole(state_file, state)
    append(Path("epochs.log"), {"run": run, "epoch": state["epoch"]})

write_whole(Path(snakemake.output[0]), {"run": run, **state, **{name: start[name] for name in ("job", "gpus", "node")}})
for number in (signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)  # all is written: to be stopped now would be to begin again
state_file.unlink(missing_ok=True)
