"""Pydantic's findings, retold: where, what was expected, what came, what to choose from."""

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from cem.config.base import Settings
from cem.config.registry import Family, choices_of
from cem.config.spelling import ALSO, WRITTEN

Location = tuple[int | str, ...]


def describe(
    error: ValidationError, model: type[BaseModel], line_of: Callable[[Location], int | None] = lambda location: None
) -> str:
    """One line for each finding, without those that only follow from another.

    line_of: the line where the study's file writes what is at a location; None where that is not known.
    """
    findings = [_as_written(finding) for finding in error.errors(include_url=False) if not _follows(finding)]
    return "\n".join(_before(line_of(_place(finding))) + _line(finding, model) for finding in findings)


def _as_written(finding: Any) -> Any:
    """Without the tags of settings that can be written in two ways."""
    return finding | {"loc": tuple(part for part in finding["loc"] if part not in (WRITTEN, ALSO))}


def _before(line: int | None) -> str:
    return "" if line is None else f"line {line}: "


def _place(finding: Any) -> Location:
    """Where a finding is; one on the study as a whole may begin with it, such as `runs.0: …`."""
    if finding["loc"]:
        return tuple(finding["loc"])
    parts = finding["msg"].removeprefix("Value error, ").split(":")[0].split(".")
    return tuple(int(part) if part.isdigit() else part for part in parts)


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
            return f"{where}: {_expected_settings(finding, model)}; found {finding['input']!r}"
        case "dict_type" | "model_type" | "model_attributes_type":
            return f"{where}: {_expected_settings(finding, model)}; found {finding['input']!r}"
        case "tuple_type" | "list_type":
            example = _example(finding["input"], _family_at(model, finding["loc"]))
            return f"{where}: expected a list such as {_yaml([example])}; found {finding['input']!r}"
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


def _expected_settings(finding: Any, model: type[BaseModel]) -> str:
    """What to write where settings are wanted and there are none, or none that say their kind."""
    family, found = _family_at(model, finding["loc"]), finding["input"]
    if family is None:
        names = _fields_at(model, finding["loc"])
        return "expected settings such as {name: value}" + (f" of {', '.join(names)}" if names else "")
    example = _yaml(_example(found, family) if isinstance(found, str) else {family.tag: next(iter(family.members))})
    if isinstance(found, dict):
        return f"say which kind with '{family.tag}', such as {example}; choose from {', '.join(family.members)}"
    return f"expected settings such as {example}"


def _example(found: Any, family: Family[Any] | None) -> Any:
    """What was found, said as it should be: the name of a member becomes settings."""
    if family is None or isinstance(found, dict):
        return found
    return {family.tag: found if found in family.members else next(iter(family.members))}


def _yaml(value: Any) -> str:
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)).strip()


def _family_at(model: type[BaseModel], location: Location) -> Family[Any] | None:
    """The family whose members may stand at a location, alone or in a list."""
    return next((f for annotation in _annotations_at(model, location) if (f := _family(annotation)) is not None), None)


def _family(annotation: Any) -> Family[Any] | None:
    if isinstance(annotation, type) and annotation in Family.of_base:
        return Family.of_base[annotation]
    return next((found for part in get_args(annotation) if (found := _family(part)) is not None), None)


def _fields_at(model: type[BaseModel], location: Location) -> list[str]:
    """Names of the settings allowed at a location."""
    models = [choice for annotation in _annotations_at(model, location) for choice in _models(annotation)]
    return sorted({_key(choice, name) for choice in models for name in choice.model_fields})


def _annotations_at(model: type[BaseModel], location: Location) -> list[Any]:
    """The types of what may stand at a location, which may pass through lists and tagged unions."""
    found: list[Any] = [model]
    for part in location:
        if isinstance(part, int):
            continue
        models = [choice for annotation in found for choice in _models(annotation)]
        by_name = [m.model_fields[name].annotation for m in models for name in m.model_fields if _key(m, name) == part]
        found = [m for m in models if part in _tags(m)] or by_name
    return found


def _key(model: type[BaseModel], name: str) -> str:
    return model.model_fields[name].alias or name


def _tags(model: type[BaseModel]) -> list[Any]:
    return [model.model_fields[name].default for name in Family.tags if name in model.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return list(choices_of(annotation))
    return [model for argument in get_args(annotation) for model in _models(argument)]
