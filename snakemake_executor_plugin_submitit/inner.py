"""The Snakemake that runs a job on its node. SIGTERM is for the job's own processes; this one sees them to their end.

Left to itself, a Snakemake that SIGTERM reaches after its last job has ended well calls that a failure, or is killed at
its exit, and the job, whose results are there, would run again from nothing.
"""

import signal
import sys

_INSTEAD_OF = ["-m", "snakemake"]  # the executor's command names this module, Snakemake adds these words


def main() -> None:
    """Run Snakemake with the arguments of this process, and exit with its code."""
    signal.signal(signal.SIGTERM, _heard)  # not SIG_IGN, which the job's processes would inherit
    if sys.argv[1:3] != _INSTEAD_OF:
        sys.exit(f"expected {' '.join(_INSTEAD_OF)} and Snakemake's arguments, found {' '.join(sys.argv[1:3])!r}")
    from snakemake.cli import main as snakemake  # takes a second, in which signals may come
    from snakemake.scheduling.job_scheduler import JobScheduler

    JobScheduler.exit_gracefully = _heard
    try:
        snakemake(sys.argv[3:])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Python forgets its handlers before it ends


def _heard(*_: object) -> None:
    """The job's processes have got the signal, too: how they end is this Snakemake's result."""


if __name__ == "__main__":
    main()
