"""Programs put before SLURM's own, to lie, fail, be slow or be killed."""

import re
from pathlib import Path

from harness.cluster import SYSTEM_PATH

PRELUDE = """\
#!/bin/bash
REAL={real}
echo "$$ ${{*@Q}}" >>{calls}
"""


class Shims:
    """`shims("squeue", script)` makes a bash script that is found before the real squeue, by heads and by jobs.

    In the script $REAL is the real program: `exec $REAL "$@"` passes a call on. Another script of the same name
    replaces the first, at once, also for a head that runs; `remove` gives the real program back. Only what runs with
    `environment` is concerned, never the tests' own questions to the cluster.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o755, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        return {"PATH": f"{self.folder}:{SYSTEM_PATH}"}

    def __call__(self, name: str, script: str) -> Path:
        real = next(path for place in SYSTEM_PATH.split(":") if (path := Path(place, name)).exists())
        calls = self._calls(name)
        calls.touch()
        calls.chmod(0o666)  # whoever calls
        new = self.folder / f".{name}.new"
        new.write_text(PRELUDE.format(real=real, calls=calls) + script.rstrip() + "\n")
        new.chmod(0o755)
        return new.replace(self.folder / name)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()

    def calls(self, name: str) -> list[str]:
        """The arguments of every call so far, each as one line in shell quotes."""
        path = self._calls(name)
        return [re.sub(r"^\d+ ", "", line) for line in path.read_text().splitlines()] if path.exists() else []

    def _calls(self, name: str) -> Path:
        return self.folder / f"{name}.calls"
