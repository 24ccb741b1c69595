"""What a Python file imports from beside it, by reading it: no code runs."""

import ast
import os
from collections.abc import Iterator
from pathlib import Path


def expanded(path: str) -> Path:
    """A path with the home folder for `~`; `~x` of a user who is not there stays as it is."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path's own raises RuntimeError for such a user


def imported_beside(path: str) -> tuple[str, ...]:
    """Paths of the Python files that this file imports from its folder, and what these import there in turn; sorted.

    They begin as `path` does. Imports inside functions count. What is imported by a name that the code makes up
    (importlib), and files that the code reads, cannot be seen. A file that is absent or no Python imports nothing here:
    what runs it says what is wrong with it.
    """
    first = expanded(path)
    folder, found, left = first.parent, set[Path](), [first]
    while left:
        file = left.pop()
        for module in _modules(file, folder):
            if module != first and module not in found:
                found.add(module)
                left.append(module)
    return tuple(sorted(str(Path(path).parent / file.relative_to(folder)) for file in found))


def _modules(file: Path, folder: Path) -> Iterator[Path]:
    """The files below `folder` that are run when this one is."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from _run(folder, one.name)
        elif isinstance(node, ast.ImportFrom):
            start = folder if not node.level else _parent(file, node.level)
            if start is None or not start.is_relative_to(folder):
                continue
            if start != folder and (package := start / "__init__.py").is_file():
                yield package
            for one in node.names:  # of a package, a name may be a module of its own
                yield from _run(start, f"{node.module}.{one.name}" if node.module else one.name)


def _parent(file: Path, level: int) -> Path | None:
    """The folder that so many dots of a relative import stand for; None: there is none."""
    return file.parents[level - 1] if level <= len(file.parents) else None


def _run(start: Path, name: str) -> Iterator[Path]:
    """Each part of a dotted name that is a module or a package here: `a.b` runs a/__init__.py and a/b.py."""
    place = start
    for part in name.split("."):
        place = place / part
        for file in (place.with_name(f"{part}.py"), place / "__init__.py"):
            if file.is_file():
                yield file
