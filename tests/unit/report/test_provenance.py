"""Where a page comes from."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from cem.planning.plan import Plan
from cem.planning.status import RunStatus, State
from cem.planning.workflow import WORKFLOW, run_command
from cem.report.page import write_missing
from cem.report.provenance import code_version, command, provenance, remedies


def test_the_page_says_which_machines_when_and_how(plan: Plan) -> None:
    run = next(iter(plan.runs.values()))
    for attack, node, started in (("linear", "m", "08:59:00"), ("decoder", "o", "09:01:00")):
        path = plan.attack(run, attack) / "attack.json"
        attempts = [{"node": node, "device": "cpu", "started": f"2026-11-27T{started}+00:00"}]
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attempts": attempts}))
    facts = provenance(plan)
    assert facts["trained on"] == "n (cpu)"
    assert facts["trainings started"] == "2026-11-27T08:53:31+00:00"
    assert facts["attacked on"] == "m (cpu), o (cpu)"
    assert facts["attacks started"] == "2026-11-27T08:59:00+00:00 to 2026-11-27T09:01:00+00:00"
    assert (facts["version of torch, attacks"], facts["numerics, attacks"]) == ("2", "2")
    assert facts["to make it again"] == run_command(Path("STUDY.yaml"))
    assert facts["code of this page"].startswith("cem ")


def test_a_commit_is_told_with_what_has_changed_since(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        own = ("-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false")
        found = subprocess.run(["git", "-C", tmp_path, *own, *words], check=True, capture_output=True, text=True)
        return found.stdout.strip()

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    package, changed = tmp_path / "package", ", with changes not committed"
    write("package/__init__.py", "")
    write("workflow/rules/train.smk", "")
    assert "commit not known" in code_version(package)
    git("init")
    assert "commit not known" in code_version(package)  # installed in a checkout of something else
    write(".gitignore", "results\n")
    git("add", ".")
    git("commit", "-m", "first")
    for name in ("config/mine.yaml", "results/x/workflow/a.py"):  # studies and results are no code
        write(name, "a: 1")
    clean = code_version(package)
    assert clean.endswith(f", commit {git('rev-parse', 'HEAD')}")
    for name in ("package/__init__.py", "workflow/rules/train.smk"):
        write(name, "x = 1")
        assert code_version(package) == clean + changed
        git("checkout", name)
    for name in ("package/new.py", "workflow/scripts/new.py", "snakemake_executor_plugin_submitit/new.py", "Snakefile"):
        write(name, "")
        assert code_version(package) == clean + changed, name
        (tmp_path / name).unlink()
    assert code_version(package) == clean


def test_without_git_no_commit_is_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "commit not known: not a git checkout, or git is not installed" in code_version(Path(__file__).parent)


def test_the_command_works_where_the_page_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
    assert command() == "snakemake --profile profiles/local --configfile STUDY.yaml"
    monkeypatch.chdir(tmp_path)  # that of an audit: it has no profile and no Snakefile
    assert command() == f"snakemake --snakefile {shlex.quote(str(WORKFLOW))} --cores all --configfile STUDY.yaml"


def test_commands_for_missing_runs_name_the_study_and_the_folder_where_its_results_are_made(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, run = next(iter(plan.runs.items()))
    (plan.run(run) / "train.json").unlink()
    missing, target = [RunStatus(name, State.WAITING)], Path("results/fake/runs") / name / "train.json"
    file = Path("my study.yaml")
    monkeypatch.chdir(plan.root.parent)
    assert remedies(plan, missing, file) == {"": run_command(file), name: run_command(file, target)}
    assert "'my study.yaml'" in run_command(file)
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    there = run_command(elsewhere / file, target)
    assert remedies(plan, missing, file)[name] == f"cd {shlex.quote(str(plan.root.parent))} && {there}"
    kept = Plan(plan.study, plan.root.rename(plan.root.with_name("kept")))  # the workflow writes nowhere below this
    assert remedies(kept, missing, file) == {"": "", name: ""}
    write_missing(kept, missing, elsewhere / "page.html", file)
    assert "No command makes what is missing here" in (elsewhere / "page.html").read_text()
