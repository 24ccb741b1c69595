"""Pydantic's findings, retold: where, what was expected, what came, what to choose from."""

from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cem.config.base import Settings
from cem.config.registry import Family, choices_of


def describe(error: ValidationError, model: type[BaseModel]) -> str:
    """One line a finding, without those that only follow from another."""
    return "\n".join(_line(f, model) for f in error.errors(include_url=False) if not _follows(f))


def _follows(finding: Any) -> bool:
    if finding["type"] == "too_short":  # a list counts as empty when what it holds was refused
        return bool(len(finding["input"]) >= finding["ctx"]["min_length"])
    return bool(finding["type"] == "default_factory_not_called")


def _line(finding: Any, model: type[BaseModel]) -> str:
    # What a study does not write: the parts of untagged unions, and tags that may be left out.
    unwritten = {member for family in Family.of_base.values() if family.default for member in family.members}
    parts = [str(part) for part in finding["loc"] if part not in unwritten]
    location = [part for part in parts if not part.startswith("constrained-")]
    where = ".".join(location) or "study"
    match finding["type"]:
        case "extra_forbidden":
            choices = _fields_at(model, finding["loc"][:-1])
            return f"{where}: unknown setting{_hint(location[-1], choices)} Choose from: {', '.join(sorted(choices))}"
        case "literal_error":
            return f"{where}: expected one of {finding['ctx']['expected']}; found {finding['input']!r}"
        case "union_tag_invalid":
            expected, found = finding["ctx"]["expected_tags"], finding["ctx"]["tag"]
            hint = _hint(found, [choice.strip("'") for choice in expected.split(", ")])
            return f"{where}: expected one of {expected}; found {found!r}{hint.rstrip('.')}"
        case "union_tag_not_found":
            return f"{where}: say which kind with {finding['ctx']['discriminator']}; found {finding['input']!r}"
        case "missing":
            return f"{where}: required, but absent"
        case "value_error":
            return f"{where}: {finding['ctx']['error']}" if location else str(finding["ctx"]["error"])
        case _:
            return f"{where}: {finding['msg'][0].lower()}{finding['msg'][1:]}; found {finding['input']!r}"


def _hint(found: str, choices: list[str]) -> str:
    """A question where one of the choices is near, else the end of the sentence."""
    near = get_close_matches(found, choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else "."


def _fields_at(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Names of the settings allowed at a location, which may pass through lists and tagged unions."""
    candidates: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int):
            continue
        by_name = [
            c.model_fields[name].annotation for c in candidates for name in c.model_fields if _key(c, name) == part
        ]
        tagged = [c for c in candidates if part in _tags(c)]
        candidates = tagged or [found for annotation in by_name for found in _models(annotation)]
    return sorted({_key(c, name) for c in candidates for name in c.model_fields})


def _key(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name


def _tags(model: type[BaseModel]) -> list[Any]:
    return [model.model_fields[name].default for name in Family.tags if name in model.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return list(choices_of(annotation))
    return [model for argument in get_args(annotation) for model in _models(argument)]
