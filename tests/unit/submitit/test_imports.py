"""The executor can be published by itself: it imports nothing of cem, and of cem only the command line imports it."""

import ast
from pathlib import Path

import cem
import snakemake_executor_plugin_submitit as executor


def imported(package) -> dict[str, set[str]]:
    """Each file of a package, by its path in it → the top-level packages that it imports, in functions too."""
    root = Path(package.__file__).parent
    found = {}
    for path in root.rglob("*.py"):
        names = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module))
        found[path.relative_to(root).as_posix()] = {name.split(".")[0] for name in names}
    assert len(found) > 15
    return found


def test_the_executor_imports_nothing_of_cem() -> None:
    assert [path for path, names in imported(executor).items() if "cem" in names] == []


def test_only_the_command_line_imports_the_executor() -> None:
    those = [path for path, names in imported(cem).items() if executor.__name__ in names]
    assert those
    assert all(path.startswith("cli/") for path in those)
