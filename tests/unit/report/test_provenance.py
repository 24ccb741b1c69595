"""Where a page comes from."""

import shlex
import subprocess
from pathlib import Path

import pytest

from cem.planning.plan import Plan
from cem.planning.workflow import WORKFLOW, run_command
from cem.report.provenance import code_version, command, provenance


def test_the_page_says_which_machines_when_and_how(plan: Plan) -> None:
    facts = provenance(plan)
    assert facts["trained on"] == "n (cpu)"
    assert facts["trainings started"] == "2026-11-27T08:53:31+00:00"
    assert facts["to make it again"] == run_command(Path("STUDY.yaml"))
    assert facts["code of this page"].startswith("cem ")


def test_a_commit_is_told_with_what_has_changed_since(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        own = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
        found = subprocess.run(["git", "-C", tmp_path, *own, *words], check=True, capture_output=True, text=True)
        return found.stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    assert "commit not known" in code_version(package)
    git("init")
    assert "commit not known" in code_version(package)  # installed in a checkout of something else
    git("add", ".")
    git("commit", "-m", "first")
    assert code_version(package).endswith(f", commit {git('rev-parse', 'HEAD')}")
    (package / "__init__.py").write_text("x = 1")
    assert code_version(package).endswith(f", commit {git('rev-parse', 'HEAD')}, with changes not committed")


def test_without_git_no_commit_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "commit not known: not a git checkout, or git is not installed" in code_version(Path(__file__).parent)


def test_the_command_works_where_the_page_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    assert command() == "snakemake --profile profiles/local --configfile STUDY.yaml"
    monkeypatch.chdir(tmp_path)  # that of an audit: it has no profile and no Snakefile
    assert command() == f"snakemake --snakefile {shlex.quote(str(WORKFLOW))} --cores all --configfile STUDY.yaml"
