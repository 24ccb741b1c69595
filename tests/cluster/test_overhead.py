"""What a job costs beyond its own work, against Snakemake's SLURM plugin on the same cluster."""

import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from harness import Head, Shims

FEW = 24
SNAKEFILE = """
rule all:
    input: expand("out/{i}.txt", i=range(int(config["jobs"])))
localrules: all
rule trivial:
    output: "out/{i}.txt"
    shell: "hostname > {output}"
"""
RESOURCES = {"slurm_partition": "cpu", "slurm_account": "ci", "mem_mb": 100, "runtime": 5}
OURS = {
    "executor": "submitit", "submitit-poll": 2, "nolock": True, "jobs": 1000, "latency-wait": 15, "scheduler": "greedy",
    "default-resources": RESOURCES,
}  # fmt: skip
THEIRS = {  # tuned: polling starts early; mem_mb holds two Snakemakes, for which ours adds memory by itself
    "executor": "slurm", "jobs": 1000, "latency-wait": 15, "scheduler": "greedy",
    "default-resources": RESOURCES | {"mem_mb": 400},
    "slurm-init-seconds-before-status-checks": 2, "seconds-between-status-checks": 2, "max-status-checks-per-second": 1,
}  # fmt: skip


def start(cluster, folder: Path, profile: dict, jobs: int, shims: Shims) -> Head:
    folder.mkdir(parents=True)
    (folder / "Snakefile").write_text(SNAKEFILE)
    (folder / "profile").mkdir()
    (folder / "profile/config.yaml").write_text(yaml.safe_dump(profile))
    words = ["--profile", "profile", "--config", f"jobs={jobs}"]
    return Head(cluster, folder, *words, environment=shims.environment, log=folder / "head.log")


@pytest.fixture
def system_configuration(cluster) -> Iterator[None]:
    """The cluster's configuration where SLURM looks by itself: Snakemake's plugin strips SLURM_CONF from its jobs."""
    path = Path("/etc/slurm/slurm.conf")
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(cluster.environment["SLURM_CONF"])
    yield
    path.unlink()


# Not in requirements.lock: Snakemake loads every executor that is installed, and this one calls programs as it loads.
# Not among the dependencies: importing that plugin calls `which`, which a machine need not have.
@pytest.mark.skipif(
    find_spec("snakemake_executor_plugin_slurm") is None, reason="needs: pip install snakemake-executor-plugin-slurm"
)
@pytest.mark.slow
def test_a_job_costs_less_than_with_snakemakes_slurm_plugin(cluster, tmp_path, shims, system_configuration) -> None:
    seconds = {}
    for name, profile in (("ours", OURS), ("theirs", THEIRS)):
        begun = time.monotonic()
        head = start(cluster, tmp_path / name, profile, FEW, shims)
        assert head.wait(600) == 0, head.tail()
        seconds[name] = (time.monotonic() - begun) / FEW
    print(f"seconds a job, {FEW} jobs: {seconds['ours']:.2f}; Snakemake's SLURM plugin: {seconds['theirs']:.2f}")
    assert seconds["ours"] < seconds["theirs"]
