"""Fixtures of the tests on a real SLURM, which the session brings up and takes down.

They are skipped, and say why, where there is no root or no Debian. CEM_CLUSTER_BASE: where the cluster lives.
CEM_CLUSTER_KEEP=1: use the one that is up there, and leave it up (a session then starts in a second).
CEM_CLUSTER_ACCOUNTING=none: without slurmdbd, as some sites have it; every test but those of the accounting itself.
"""

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import CLUSTER_SH, Cluster, Shims, Workflow

HERE = Path(__file__).parent
# The longest, which compute as much as they wait, fall to the first of two workers, one after the other: beside each
# other they take twice as long. A worker with one test is given the next file at once.
FIRST = tuple(HERE / name for name in ("test_same_bits.py", "test_attempts.py", "test_study.py"))
KEEP = os.environ.get("CEM_CLUSTER_KEEP") == "1"
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
ACCOUNTING = os.environ.get("CEM_CLUSTER_ACCOUNTING") != "none"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of this folder are marked. The longest come first, so that no worker ends long before the other."""
    items.sort(key=lambda item: FIRST.index(item.path) if item.path in FIRST else len(FIRST))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("cluster")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A failed test shows what its heads printed last, and the queue."""
    report = yield
    workflows = [made for made in getattr(item, "funcargs", {}).values() if isinstance(made, Workflow)]
    if report.failed and report.when == "call":
        for workflow in workflows:
            for head in workflow.heads:
                report.sections.append((f"{head.log}, exit code {head.returncode}", head.tail()))
            report.sections.append((f"{workflow.cluster.base}", workflow.cluster.situation()))
    return report


@pytest.fixture(scope="session")
def base() -> Iterator[Path]:
    """Where this checkout's clusters live, those of each xdist worker apart; one session at a time."""
    name = f"cem-slurm-{hashlib.sha256(bytes(CLUSTER_SH)).hexdigest()[:6]}"
    folder = Path(os.environ.get("CEM_CLUSTER_BASE") or Path(tempfile.gettempdir()).resolve() / name)
    folder /= WORKER
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pytest.fail(f"Another test session uses {folder}. Wait for it, or set CEM_CLUSTER_BASE.", pytrace=False)
        yield folder


def _running(cluster: Cluster) -> Iterator[Cluster]:
    if not KEEP:
        cluster.down()  # of a session that was killed
    try:
        # Debian's packages, a user and free ports are taken by one worker at a time.
        with (cluster.base.parents[1 if WORKER else 0] / "installing").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cluster.up()
        yield cluster
    finally:
        if not KEEP:
            cluster.down()


@pytest.fixture(scope="session")
def cluster(base) -> Iterator[Cluster]:
    """The cluster: nodes c1 c2 (CPU), g1 g2 (two GPUs each); partitions cpu, gpu, urgent, scavenge; accounting."""
    yield from _running(Cluster(base / "slurm", ACCOUNTING))


@pytest.fixture
def accounting(cluster) -> None:
    """For tests of the accounting itself."""
    if not cluster.accounting:
        # Asked for by whoever set the variable: there is no slurmdbd then whose answers could be tested.
        pytest.skip("the accounting itself, which CEM_CLUSTER_ACCOUNTING=none leaves out")


@pytest.fixture(scope="session")
def plain_cluster(base) -> Iterator[Cluster]:
    """A second, smaller cluster (c1, g1) without accounting, as some sites have it."""
    yield from _running(Cluster(base / "plain", accounting=False, cpu_nodes=1, gpu_nodes=1))


@pytest.fixture(autouse=True)
def _restored(request, cluster) -> Iterator[None]:
    """After each test no job is left, and all that it broke works again."""
    yield
    cluster.restore()
    if "plain_cluster" in request.fixturenames:
        request.getfixturevalue("plain_cluster").restore()


@pytest.fixture
def tmp_path(base, request) -> Path:
    """As pytest's own, but readable by every user; the last session's are kept."""
    folder = base / "tests" / re.sub(r"\W+", "-", request.node.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def shims(tmp_path) -> Shims:
    """Programs put before SLURM's own on the PATH of the workflow's heads."""
    return Shims(tmp_path / "shims")


@pytest.fixture
def workflow(cluster, tmp_path, shims) -> Iterator[Workflow]:
    """The small workflow, in a folder of the test's own, on the cluster."""
    made = Workflow(cluster, tmp_path / "workflow", shims)
    yield made
    made.end()


@pytest.fixture
def plain_workflow(plain_cluster, tmp_path, shims) -> Iterator[Workflow]:
    """The small workflow on the cluster without accounting."""
    made = Workflow(plain_cluster, tmp_path / "plain", shims)
    yield made
    made.end()
