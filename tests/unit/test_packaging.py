"""Files that say once more what pyproject.toml, requirements.lock and the changelog say."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

import cem

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[^\s;]+)")


def normal(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lines: list[str]) -> dict[str, str]:
    return {normal(found["name"]): found["version"] for line in lines if (found := PIN.match(line))}


def needed() -> set[str]:
    """Packages that the program needs at run time."""
    return {normal(re.match(r"[\w.-]+", text)[0]) for text in PROJECT["project"]["dependencies"]}


def locked() -> dict[str, str]:
    return pins((ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines())


def test_the_conda_environment_holds_what_the_program_needs_at_the_locked_versions():
    environment = yaml.safe_load((ROOT / "workflow/envs/cem.yaml").read_text(encoding="utf-8"))
    (lines,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    pinned = pins(lines)
    assert len(pinned) == len(lines), "every package has a version"
    assert set(pinned) == needed()
    assert {name: version for name, version in pinned.items() if locked()[name] != version} == {}


def test_the_lock_holds_everything_that_pyproject_names():
    optional = [text for texts in PROJECT["project"]["optional-dependencies"].values() for text in texts]
    named = {normal(re.match(r"[\w.-]+", text)[0]) for text in optional} | needed()
    assert named - set(locked()) == {"cem"}


def test_the_package_says_that_it_has_types():
    assert (ROOT / "cem/py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["cem"]


def test_every_file_that_the_report_reads_is_in_the_package():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["cem.report"]
    beside = {path for path in (ROOT / "cem/report").iterdir() if path.is_file() and path.suffix != ".py"}
    assert {path.suffix for path in beside} == {".html", ".csv", ".css", ".js"}
    assert {path for path in beside if not any(path.match(pattern) for pattern in patterns)} == set()


def test_the_version_and_its_date_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.search(r"^## (\d+\.\d+\.\d+) \((\d{4}-\d\d-\d\d)\)$", changes, re.MULTILINE).groups()
    assert (version, date) == (citation["version"], str(citation["date-released"]))
    assert version == cem.__version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the format requires
    assert citation["license"] == PROJECT["project"]["license"]


def test_the_container_has_the_locked_packages_for_a_supported_python():
    recipe = (ROOT / "Containerfile").read_text(encoding="utf-8")
    minor = int(re.search(r"^FROM .*python:3\.(\d+)", recipe, re.MULTILINE)[1])
    low, high = map(int, re.findall(r"3\.(\d+)", PROJECT["project"]["requires-python"]))
    assert low <= minor < high
    assert "install --no-cache-dir --disable-pip-version-check -r /requirements.lock" in recipe
    assert "!requirements.lock" in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()


def test_pre_commit_accepts_its_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("PRE_COMMIT_HOME", str(tmp_path))
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hooks_come_from_the_repository_and_are_quick_at_a_commit():
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in settings["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in settings["repos"]} == {"local"}, "nothing is downloaded"
    assert {hook["language"] for hook in hooks} == {"system"}
    for hook in hooks:
        if hook["id"] == "check":
            assert (hook["entry"], hook["stages"]) == ("make check", ["pre-push"])
        else:
            python, option, module = hook["entry"].split()[:3]
            assert (python, option) == (".venv/bin/python", "-m")
            assert importlib.util.find_spec(module)
            assert hook.get("stages", settings["default_stages"]) == ["pre-commit"]
