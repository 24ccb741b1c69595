"""The Snakemake that runs a job on its node. What SIGTERM finds done stays done.

Snakemake ends with a failure, or waits for itself for ever, when SIGTERM comes while it notes that its last job has
ended well; when it comes later still, Python is killed at its exit. A job whose results are there would then begin
again. Before that it is as ever: no other job is started, and the one that runs has got the signal, too.
"""

import signal
import sys
import threading

_INSTEAD_OF = ["-m", "snakemake"]  # the executor's command names this module, Snakemake adds these words


def main() -> None:
    """Run Snakemake with the arguments of this process, and exit with its code."""
    if sys.argv[1:3] != _INSTEAD_OF:
        sys.exit(f"expected {' '.join(_INSTEAD_OF)} and Snakemake's arguments, found {' '.join(sys.argv[1:3])!r}")
    from snakemake.cli import main as snakemake
    from snakemake.scheduling.job_scheduler import JobScheduler

    schedule, exit_gracefully = JobScheduler.schedule, JobScheduler.exit_gracefully

    def heard(self: JobScheduler, *_: object) -> None:
        # In a thread, which may wait for the lock that the interrupted code holds.
        if not self._user_kill:
            threading.Thread(target=exit_gracefully, args=(self,)).start()

    def schedule_and_judge(self: JobScheduler) -> bool:
        done = schedule(self)
        failed = self._errors or self._executor_error or self.failed or self.remaining_jobs
        return done or (self._user_kill == "graceful" and not failed)

    JobScheduler.exit_gracefully, JobScheduler.schedule = heard, schedule_and_judge
    try:
        snakemake(sys.argv[3:])
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Python forgets other handlers before it ends


if __name__ == "__main__":
    main()
