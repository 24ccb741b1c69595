"""What differs among runs: the columns of `cem plan`."""

import json
from collections.abc import Hashable, Sequence
from typing import Any

from cem.config import Run, Settings
from cem.config.base import TAGS
from cem.config.paths import dotted

ABSENT = "-"


class Absent:
    """Stands for the value of a setting that a run does not have."""


def settings_that_differ(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Setting, by its dotted path → its value in each run, of those whose value is not the same in all runs that have
    it; Absent where a run has no such setting.

    A setting that says which member of a family is used has the family's name.
    """
    found: dict[str, list[Any]] = {}
    for field in Run.model_fields:
        values: list[Hashable] = [getattr(run, field) for run in runs]
        distinct = list(dict.fromkeys(values))  # a study of thousands of runs has few of each
        if len(distinct) < 2:
            continue
        parts = dict(zip(distinct, _named(field, distinct), strict=True))
        for name in dict.fromkeys(name for part in parts.values() for name in part):
            if len({value_text(part[name]) for part in parts.values() if name in part}) > 1:
                found[name] = [parts[value].get(name, Absent) for value in values]
    return found


def _named(field: str, values: Sequence[Any]) -> list[dict[str, Any]]:
    """Each value of a run's setting in its parts."""
    if all(isinstance(value, Settings) for value in values):
        found = [dotted(value.model_dump(mode="json"), field) for value in values]
        return [{_short(name): part for name, part in parts.items()} for parts in found]
    if any(isinstance(value, tuple) for value in values):
        labels = ["+".join(one.label for one in value) or ABSENT for value in values]
        if len(set(labels)) < len(labels):
            labels = [json.dumps([one.sparse() for one in value]) for value in values]
        return [{field: label} for label in labels]
    return [{field: value} for value in values]


def _short(name: str) -> str:
    family, _, tag = name.rpartition(".")
    return family if tag in TAGS else name


def value_text(value: Any) -> str:
    """As the table shows it."""
    if value is Absent:
        return ABSENT
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
