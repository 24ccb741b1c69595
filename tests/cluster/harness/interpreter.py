"""The project's Python for a user who must not read the folder where its interpreter lies (/root, as a rule)."""

import shutil
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

CHECK = "import snakemake, submitit"


def readable_python(folder: Path, works: Callable[..., bool]) -> tuple[str, dict[str, str]]:
    """This interpreter if the user can run it, else a copy of it in the folder, seeing the same packages."""
    if works(sys.executable, "-c", CHECK):
        return sys.executable, {}
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    original, copy, packages = Path(sys.base_prefix), folder / "base", folder / f"venv/lib/{version}/site-packages"
    if not packages.exists():
        skipped = shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip", "__pycache__", "config-*")
        shutil.copytree(original / "lib" / version, copy / "lib" / version, ignore=skipped)
        (copy / "bin").mkdir()
        shutil.copy2(original / "bin" / version, copy / "bin")
        for library in original.glob("lib/libpython*.so*"):
            shutil.copy2(library, copy / "lib")
        (folder / "venv/bin").mkdir(parents=True)
        (folder / "venv/bin/python").symlink_to(copy / "bin" / version)
        (folder / "venv/pyvenv.cfg").write_text(f"home = {copy / 'bin'}\ninclude-system-site-packages = false\n")
        packages.mkdir(parents=True)
        project = sysconfig.get_path("purelib")
        (packages / "project.pth").write_text(f"import site; site.addsitedir({project!r})\n")
    python, environment = str(folder / "venv/bin/python"), {"LD_LIBRARY_PATH": str(copy / "lib")}
    if not works("env", f"LD_LIBRARY_PATH={copy / 'lib'}", python, "-c", CHECK):
        pytest.skip(f"a user other than root can read neither {sys.executable} nor the packages of the project")
    return python, environment
