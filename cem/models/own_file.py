"""The Python file of a user's own that a study names: it is run, and gives the function that makes the network."""

import hashlib
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from cem.config import OwnModel
from cem.config.imports import expanded, imported_beside
from cem.models.graph import SHOWN
from cem.models.split import ModelError

_siblings: set[str] = set()  # names of modules that lie beside the file which was run last


def function_of(cfg: OwnModel) -> Callable[..., Any]:
    """What the file calls `make`. Raises ModelError.

    The file is run anew where its contents, those of what it imports from beside it, or its folder, are not what they
    were.
    """
    path = expanded(cfg.path)
    try:
        # The folder, too: what lies beside two files that are alike may differ, and not all of it can be told.
        contents = [path.read_bytes(), *(expanded(one).read_bytes() for one in imported_beside(cfg.path))]
        digest = hashlib.sha256(b"\0".join([bytes(path.resolve().parent), *contents])).hexdigest()
    except OSError as error:
        raise ModelError(
            f"{cfg.path}: expected a Python file with a function {cfg.make}; cannot read it: {error.strerror}. Correct "
            "the path, which is relative to the working folder"
        ) from None
    name = f"cem_own_{digest}"
    if name not in sys.modules:
        _execute(name, path)
    module = sys.modules[name]
    make = getattr(module, cfg.make, None)
    if not callable(make):
        own = [one for one, value in vars(module).items() if getattr(value, "__module__", None) == name]
        near = get_close_matches(cfg.make, own, SHOWN) or own[:SHOWN]
        has = f"it has {', '.join(near)}" if near else "it has none"
        raise ModelError(
            f"{cfg.path}: make: expected a function or class {cfg.make!r} in it; {has}. Name one that gives the network"
        )
    found: Callable[..., Any] = make
    return found


def _execute(name: str, path: Path) -> None:
    """Run a file as the module of this name; what lies beside it can be imported by it.

    Modules that an earlier file has imported from beside it are forgotten: these of the same names are others.
    """
    while _siblings:
        sys.modules.pop(_siblings.pop(), None)
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder, before, writes = path.resolve().parent, set(sys.modules), sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True  # beside the user's files nothing is left
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own code raises
        del sys.modules[name]
        raise ModelError(f"{path}: cannot be run: {type(error).__name__}: {error}. Correct it") from error
    finally:
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        _siblings.update(one for one in set(sys.modules) - before - {name} if _lies_in(folder, sys.modules[one]))


def _lies_in(folder: Path, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).is_relative_to(folder)


class _Loader(importlib.machinery.SourceFileLoader):
    """Leaves no compiled file beside the user's."""

    def set_data(self, *arguments: Any, **named: Any) -> None:
        """Nothing is written."""
