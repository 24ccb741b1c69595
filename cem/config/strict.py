"""Strict checking, which takes a text for a number only where a number is wanted and the text says exactly one.

YAML 1.1 reads 1e-3 as text, and Snakemake's `--config 'training={epochs: 3}'` hands on every value as text.
"""

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)
_WHOLE = re.compile(r"[-+]?(0|[1-9]\d*)")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_WORDS = {"true": True, "false": False}


def validate(model: type[M], settings: Any) -> M:
    """The settings as a model. Lists count as tuples, but neither true nor 2.5 as a whole number.

    Raises ValidationError for what does not fit, and TypeError for what JSON cannot say.
    """
    text = json.dumps(settings)
    while True:
        try:
            return model.model_validate_json(text, strict=True)
        except ValidationError as error:
            settings = json.loads(text)
            # One that was replaced is no text any more, so this ends; all that can be is known after several rounds,
            # since a finding may hide those that depend on it.
            if not sum(_replace(settings, finding) for finding in error.errors(include_url=False)):
                raise
            text = json.dumps(settings)


def _replace(settings: Any, finding: Any) -> bool:
    """Put the value that a text says in its place, if it says one of the type that is wanted there."""
    said = _said(finding["input"], finding["type"]) if isinstance(finding["input"], str) else ...
    if said is ...:
        return False
    parent, key, found = None, None, settings
    for part in finding["loc"]:  # passes by the parts that no study writes: tags and the types of a union
        inside = isinstance(part, int) if isinstance(found, list) else isinstance(found, dict) and part in found
        if inside:
            parent, key, found = found, part, found[part]
    if parent is None or found != finding["input"]:
        return False
    parent[key] = said
    return True


def _said(text: str, wanted: str) -> Any:
    """The value; ... where the text says none of the type."""
    if wanted == "bool_type":
        return _WORDS.get(text.lower(), ...)
    if wanted not in ("int_type", "float_type"):
        return ...
    if text == "null":
        return None
    return int(text) if _WHOLE.fullmatch(text) else float(text) if _NUMBER.fullmatch(text) else ...
