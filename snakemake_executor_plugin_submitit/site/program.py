"""In whose name the tools of this folder speak."""

from dataclasses import dataclass


class SiteError(Exception):
    """Something the user can put right. The message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Program:
    """The program that calls these tools, whose commands are named in what they advise.

    name: its command, with `doctor` and `profile install` below it. setup: the command that installs its software.
    """

    name: str
    setup: str
