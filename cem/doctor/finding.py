"""One line of the examination, and how SLURM's commands are asked."""

import os
import subprocess
from dataclasses import dataclass
from typing import Literal

_TIMEOUT_S = 30
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_")  # they would shape a job submitted from inside one


@dataclass(frozen=True)
class Finding:
    """ok: nothing to do. warning: it works, less well. problem: it will not work. advice: what to do."""

    level: Literal["ok", "warning", "problem"]
    subject: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.level:<8} {self.subject}: {self.text}"
        return f"{line}\n         {self.advice}" if self.advice else line


@dataclass(frozen=True)
class Answer:
    """What a command said. code 127: there is none of that name; 124: it did not answer in time."""

    code: int
    out: str
    error: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def why(self) -> str:
        """Its complaint, in a line."""
        lines = [line.strip() for line in (self.error or self.out).splitlines() if line.strip()]
        return "; ".join(lines[-3:])[:300] or f"exit code {self.code}"


def ask(*command: str, timeout_s: float = _TIMEOUT_S) -> Answer:
    """Run a command. Of a surrounding job's variables only SLURM_CONF is handed on."""
    environment = {k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith(_OF_A_JOB)}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return Answer(124, "", f"no answer within {timeout_s:.0f} s")
    except OSError as error:
        return Answer(127, "", str(error))
    return Answer(done.returncode, done.stdout, done.stderr)
