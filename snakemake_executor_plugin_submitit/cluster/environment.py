"""The environment that SLURM's commands get: none of its wishes is taken over unseen.

sbatch believes a variable more than the batch file (SBATCH_ACCOUNT beats the profile), and a head that is itself a job
has the variables of that job. squeue and sacct hide rows by theirs.
"""

import os
from collections.abc import Mapping
from typing import Any

_KEPT = frozenset(["SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT"])  # how the controller is found, and who asks
_WISHES = (
    *("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SALLOC_", "SUBMITIT_"),
    *("SQUEUE_", "SACCT_", "SINFO_", "SCANCEL_", "SCONTROL_"),
)
# What SLURM, or the site, gives a job for itself: that of a head would send its jobs to the head's GPU and folder.
_OF_A_JOB = frozenset(
    [
        *("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"),
        *("ZE_AFFINITY_MASK", "TMPDIR"),
    ]
)
_SERVE = {"account": "SBATCH_ACCOUNT", "partition": "SBATCH_PARTITION"}


def for_slurm(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for a command of SLURM, and for the jobs that it submits."""
    own = _OF_A_JOB if "SLURM_JOB_ID" in environ else ()
    return {
        name: value for name, value in environ.items() if name in _KEPT or not (name in own or name.startswith(_WISHES))
    }


def from_environment(
    given: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> tuple[dict[str, str], list[str]]:
    """Settings that variables of SLURM give where nothing else does, and what the user is to be told of variables.

    given: the site settings there are, name → value.
    """
    found: dict[str, str] = {}
    said = []
    for name, variable in _SERVE.items():
        value, before = environ.get(variable, ""), given.get(name, "")
        if value and not before:
            found[name] = value
            said.append(f"jobs that name no {name} get {value!r}, from {variable}: submitit-{name} is not set")
        elif value and value != before:
            said.append(f"{variable}={value} is not used: submitit-{name} is {before!r}")
    unused = sorted(
        name
        for name, value in environ.items()
        if value and (name.startswith("SBATCH_") or name == "SLURM_CLUSTERS") and name not in _SERVE.values()
    )
    if unused:
        said.append(f"not used: {', '.join(unused)}. What jobs are to have is said in the profile")
    return found, said
