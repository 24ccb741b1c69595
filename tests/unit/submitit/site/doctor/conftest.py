"""SLURM played by small programs on PATH, and findings made easy to look at."""

import os
import shutil
from pathlib import Path

import pytest

from snakemake_executor_plugin_submitit.site import doctor

CONFIG = {
    "SLURM_VERSION": "23.11.4",
    "MaxArraySize": "1001",
    "JobRequeue": "1",
    "PreemptMode": "OFF",
    "PreemptType": "preempt/none",
    "SelectType": "select/cons_tres",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageEnforce": "associations,limits",
}
PARTITIONS = """\
cpu*|up|1-00:00:00|4|(null)
gpu|up|2:00:00|2|gpu:a100:4(S:0-1)
gpu|up|2:00:00|1|gpu:v100:2
old|drain|1:00|1|(null)"""


class Cluster:
    """A folder of programs that answer as SLURM does; everything they were asked is in `asked`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.program("sinfo", f'[ "$1" = --version ] && echo slurm 23.11.4 || cat <<"END"\n{PARTITIONS}\nEND')
        self.config()
        for name in ("squeue", "scancel", "sacct", "sbatch", "srun"):
            self.program(name, "")
        self.program("sacctmgr", "[ $4 = qos ] && printf 'normal|5\nlong|\n' || echo 'lab_1|normal,long|'")

    def program(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >>"{self.folder}/asked"\n{body}\n')
        path.chmod(0o755)

    def config(self, **changes: str) -> None:
        lines = "\n".join(f"{key:<24}= {value}" for key, value in (CONFIG | changes).items())
        self.program("scontrol", f'cat <<"END"\nConfiguration data as of now\n{lines}\nEND')

    def remove(self, *names: str) -> None:
        for name in names:
            (self.folder / name).unlink()

    @property
    def asked(self) -> list[str]:
        return (self.folder / "asked").read_text().splitlines()


@pytest.fixture
def no_slurm(tmp_path, monkeypatch) -> Path:
    """A PATH with nothing but a shell, and a working folder whose name is hostile."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "cat", "sleep"):
        (tools / name).symlink_to(str(shutil.which(name)))
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    work = tmp_path / """it's "my" $(work)"""
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def cluster(no_slurm, tmp_path, monkeypatch) -> Cluster:
    made = Cluster(tmp_path / "slurm")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    return made


@pytest.fixture
def quick(monkeypatch):
    """Without the checks of this host's software, which take seconds."""
    monkeypatch.setattr(doctor, "check_software", lambda _: iter(()))


@pytest.fixture
def levels():
    return _levels


@pytest.fixture
def of():
    return _of


def _levels(findings) -> dict[str, str]:
    """Subject → worst level."""
    order = ("ok", "warning", "problem")
    found: dict[str, str] = {}
    for one in findings:
        found[one.subject] = max(found.get(one.subject, "ok"), one.level, key=order.index)
    return found


def _of(findings, subject: str) -> str:
    return "\n".join(str(one) for one in findings if one.subject == subject)
