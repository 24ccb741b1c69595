"""The type checker of the tests: beartype, on the first hundred calls of each function in each test.

A fit calls the same few functions ten thousand times. And a function inside another is defined at each call of that:
beartype would compile its checks each time. Together they were half of the time of tests that fit mixtures.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

CALLS = 100
_written: dict[tuple[str, str, str], Callable] = {}
_test = 0


def begin_test() -> None:
    """From here on, the calls of each function are counted from nothing."""
    global _test
    _test += 1


def check_types(function: Callable) -> Callable:
    """What jaxtyping calls with a function that has the arguments and types of one that is checked, and does nothing.

    The checks of a function inside another are written once.
    """
    name = function.__module__, function.__qualname__, str(inspect.signature(function))
    if name not in _written or "<locals>" not in function.__qualname__:
        _written[name] = _on_first_calls(beartype(function))
    return _written[name]


def _on_first_calls(check: Callable) -> Callable:
    test, calls = _test, 0

    @functools.wraps(check)
    def checked(*args: Any, **kwargs: Any) -> None:
        nonlocal test, calls
        if test != _test:
            test, calls = _test, 0
        if calls < CALLS:
            calls += 1
            check(*args, **kwargs)

    return checked
