"""Which files a network's Python file rests on, read from its text."""

from pathlib import Path

import pytest

from cem.config.imports import imported_beside

FILES = {
    "net.py": (
        "import os, torch\nimport layers as l, pack.deep.inner\nfrom blocks import Block\nfrom other import part\n"
        "def build():\n    import late\n    from absent import nothing\n"
    ),
    "layers.py": "from more import thing\nimport net\n",
    "more.py": "import layers\n",  # in a circle
    "blocks.py": "1 / 0\n",  # nothing is run
    "late.py": "",
    "pack/__init__.py": "from . import beside\nfrom .beside import *\n",
    "pack/beside.py": "from .. import up\nfrom ... import beyond\n",
    "pack/deep/__init__.py": "",
    "pack/deep/inner.py": "from ..sister import x\n",
    "pack/sister.py": "",
    "pack/unused.py": "",
    "other/part.py": "",  # a package without __init__.py
    "up.py": "",
    "unused.py": "import layers\n",
    "torch.txt": "",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_all_that_is_imported_from_beside_it_and_nothing_else(folder: Path) -> None:
    found = [str(Path(name).relative_to(folder)) for name in imported_beside(str(folder / "net.py"))]
    unused = {"net.py", "unused.py", "pack/unused.py", "torch.txt"}
    assert found == sorted(set(FILES) - unused)


def test_paths_begin_as_the_files_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert "layers.py" in imported_beside("net.py")
    monkeypatch.setenv("HOME", str(folder))
    assert "~/layers.py" in imported_beside("~/net.py")


@pytest.mark.parametrize("text", [None, "def (:\n", "\0"])
def test_what_cannot_be_read_imports_nothing(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "net.py").write_text(text)
    assert imported_beside(str(tmp_path / "net.py")) == ()
