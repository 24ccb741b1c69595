"""Settings by dotted paths, such as `model.width`."""

from copy import deepcopy
from typing import Any

from cem.config.base import Settings
from cem.config.registry import Family


def given(value: Any) -> Any:
    """Settings as the user gave them, so that defaults which depend on others are still open."""
    if isinstance(value, Settings):
        names = value.model_fields_set | {name for name in Family.tags if name in type(value).model_fields}
        return {name: given(getattr(value, name)) for name in type(value).model_fields if name in names}
    return [given(item) for item in value] if isinstance(value, (tuple, list)) else value


def depth(path: str) -> int:
    """Sorts a part after its whole, which would otherwise undo it."""
    return path.count(".")


def put(settings: dict[str, Any], path: str, value: Any) -> None:
    """Put a value at a dotted path."""
    head, _, tail = path.partition(".")
    if not tail:
        settings[head] = deepcopy(value)
        return
    if not isinstance(settings.setdefault(head, {}), dict):
        raise ValueError(f"{path} goes into {head}, which has no settings of its own")
    put(settings[head], tail, value)


def at(settings: Any, path: str) -> Any:
    """What stands at a dotted path; ... where nothing does."""
    for part in path.split("."):
        settings = settings.get(part, ...) if isinstance(settings, dict) else getattr(settings, part, ...)
    return settings


def dotted(value: Any, name: str = "") -> dict[str, Any]:
    """Settings by their dotted paths, the first of them below `name`."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in dotted(item, f"{name}.{key}".strip(".")).items()}
    return {name: value}
