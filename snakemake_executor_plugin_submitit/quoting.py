"""Words of the inner command, safe from the shell that reads them.

Snakemake builds that command as text and quotes with Python's repr, which for a path like /a/it's $(b) is a word that a
shell expands.
"""

import shlex
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from snakemake_interface_executor_plugins import utils

_LOCK = threading.Lock()
_original = utils.format_cli_value


def _format(value: Any, quote: bool = False, base64_encode: bool = False) -> str:
    if isinstance(value, str) and quote and not base64_encode and not utils.is_quoted(value):
        return shlex.quote(value)
    return str(_original(value, quote=quote, base64_encode=base64_encode))


@contextmanager
def quoted_for_the_shell(python: str) -> Iterator[None]:
    """While a command is built: strings are quoted as a shell wants it, and Python has its plain path, of which
    Snakemake takes the folder; a workflow may have replaced it by a quoted one."""
    with _LOCK:
        before = sys.executable
        sys.executable, utils.format_cli_value = python, _format
        try:
            yield
        finally:
            sys.executable, utils.format_cli_value = before, _original
