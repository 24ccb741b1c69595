"""One line of the examination."""

from dataclasses import dataclass
from typing import Literal


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
