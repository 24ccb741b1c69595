"""Many small jobs: few calls of sbatch, and a head that stays small."""

import contextlib
import re
import time
from pathlib import Path

import pytest

JOBS = 300


@pytest.mark.slow
def test_hundreds_of_jobs_are_a_few_arrays(workflow, cluster, shims) -> None:
    shims("sbatch", 'exec $REAL "$@"')
    workflow.profile["jobs"] = 1000
    targets = [f"hosts/{number}.txt" for number in range(JOBS)]
    head = workflow.head(*targets)
    peaks, begun = [0], time.monotonic()

    def is_over() -> bool:
        with contextlib.suppress(OSError):
            peaks.extend(map(int, re.findall(r"VmHWM:\s*(\d+)", Path(f"/proc/{head.pid}/status").read_text())))
        return not head.alive

    cluster.wait_until(is_over, 1200, "the head to end")
    assert head.returncode == 0
    seconds = time.monotonic() - begun
    print(f"{JOBS} jobs: {seconds:.0f} s, {seconds / JOBS:.2f} s a job; head: {max(peaks) / 1024:.0f} MB")
    assert all((workflow.folder / target).exists() for target in targets)
    assert len(shims.calls("sbatch")) <= 5
    assert 0 < max(peaks) <= 250 * 1024
