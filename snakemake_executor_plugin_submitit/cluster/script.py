"""The batch file: what sbatch reads and what the node runs before and around Python."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import JobPaths

SUBMITIT = "submitit.core._submit"  # loads and runs what was submitted


def batch_script(
    folder: Path,
    options: Mapping[str, Any],
    python: str,
    setup: Sequence[str] = (),
    extra: Sequence[str] = (),
    count: int = 1,
    parallelism: int = 1,
    module: str = SUBMITIT,
) -> str:
    """Its text.

    folder: of the submission, as submitit uses it. options: sbatch's long ones, name → value; True: without a value.
    python: shell text. extra: options as they are written. count: jobs; more than one are an array, of which at most
    `parallelism` run at once. module: what Python runs, with `folder` as its argument.
    """
    job = "%j" if count == 1 else "%A_%a"
    log = str(JobPaths(folder).stdout).replace("%j", job)
    own = {"output": log.replace("%t", "0"), "open-mode": "append", "export": "ALL", "nodes": 1}
    if count > 1:
        own["array"] = f"0-{count - 1}%{min(count, parallelism)}"
    header = [_option(name, value) for name, value in sorted({**own, **options}.items())]
    # Said again: srun of SLURM 22.05 to 23.02 does not take it from sbatch, and would give the job one processor.
    cpus = [f"--cpus-per-task={options['cpus_per_task']}"] if "cpus_per_task" in options else []
    srun = shlex.join(["srun", "--unbuffered", *cpus, "--output", log])
    lines = [
        "#!/bin/bash",
        *(f"#SBATCH {option}" for option in [*header, *extra]),
        *setup,
        "export SUBMITIT_EXECUTOR=slurm",
        f"{srun} {python} -u -m {module} {shlex.quote(str(folder))}",
    ]
    return "\n".join(lines) + "\n"


def _option(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    return flag if value is True else f"{flag}={shlex.quote(str(value))}"
