"""Reading a study from YAML, with every mistake named before any job starts."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cem.config.base import ConfigError
from cem.config.errors import Location, describe
from cem.config.panels import with_panel
from cem.config.strict import validate
from cem.config.study import Study


def load_study(path: str | Path) -> Study:
    """Read and check a study.

    Raises ConfigError, naming the file and every finding with its line, when the file is absent, is no YAML, or asks
    for something that cannot be run.
    """
    settings, node = read_settings(path)
    return _check(settings, str(path), node)


def parse_study(settings: Any, where: str) -> Study:
    """Check settings that were read already, such as Snakemake's `config`. `where` names them in errors.

    A text that is exactly a number is taken for it where a number is wanted, and nowhere else.
    """
    return _check(settings, where, None)


def read_settings(path: str | Path) -> tuple[Any, yaml.Node | None]:
    """What a YAML file says, and its nodes, which know their lines.

    Raises ConfigError when the file is absent, is no YAML, or gives a key twice: YAML keeps the last of the two without
    a word, and a study must not lose a setting that way.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a study in YAML; cannot read it: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # an impossible date; too deep, or in itself
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    doubled = _doubled_keys(node)
    if doubled:
        raise ConfigError(f"{path}: given twice: {'; '.join(doubled)}. Keep one of each.")
    return settings, node


def _check(settings: Any, where: str, node: yaml.Node | None) -> Study:
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: expected settings such as `name: ...`; found {type(settings).__name__}")
    try:
        return validate(Study, _with_panel(_as_now(settings), where, node))
    except TypeError as error:
        raise ConfigError(f"{where}: expected text, numbers, lists and mappings; {error}") from None
    except ValidationError as error:
        found = describe(error, Study, lambda location: _line_of(node, location))
        raise ConfigError(f"{where}: this study cannot be run:\n{found}") from None


def _with_panel(settings: dict[str, Any], where: str, node: yaml.Node | None) -> dict[str, Any]:
    try:
        return settings | {"attacks": with_panel(settings["attacks"])} if "attacks" in settings else settings
    except ConfigError as error:
        line = _line_of(node, ("attacks",))
        raise ConfigError(f"{where}{'' if line is None else f', line {line}'}: {error}") from None


def _as_now(settings: dict[str, Any]) -> dict[str, Any]:
    """Up to version 0.1.0 `metrics` was a mapping, of LPIPS alone. A model may say `source: module` for its arch."""
    if "model" in settings:
        settings = settings | {"model": _with_arch(settings["model"])}
    if isinstance(grid := settings.get("grid"), dict) and isinstance(grid.get("model"), list):
        settings = settings | {"grid": grid | {"model": [_with_arch(model) for model in grid["model"]]}}
    if isinstance(rows := settings.get("runs"), list):
        named = [
            row | {"model": _with_arch(row["model"])} if isinstance(row, dict) and "model" in row else row
            for row in rows
        ]
        settings = settings | {"runs": named}
    metrics, names = settings.get("metrics"), {"lpips_trunk": "trunk", "lpips_sha256": "sha256"}
    if not isinstance(metrics, dict) or not set(metrics) <= set(names):
        return settings
    chosen = {names[key]: value for key, value in metrics.items() if value is not None}
    return settings | {"metrics": [{"kind": "lpips"} | chosen] if chosen else []}


def _with_arch(model: Any) -> Any:
    """A model with `source: module` as `arch: module`."""
    if not (isinstance(model, dict) and model.get("source") == "module" and "arch" not in model):
        return model
    return {"arch": "module"} | {name: value for name, value in model.items() if name != "source"}


def _line_of(node: yaml.Node | None, location: Location) -> int | None:
    """Line of the innermost part of a location that the file writes, from 1; None where it writes none of it."""
    line = None
    for part in location:
        if isinstance(node, yaml.MappingNode):
            key, child = next(((k, v) for k, v in node.value if k.value == part), (None, None))
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            key = child = node.value[part]
        else:
            continue
        if key is not None:
            line, node = key.start_mark.line + 1, child
    return line


def _doubled_keys(node: yaml.Node | None) -> list[str]:
    """What each mapping gives more than once, with the lines."""
    if isinstance(node, yaml.SequenceNode):
        return [found for child in node.value for found in _doubled_keys(child)]
    if not isinstance(node, yaml.MappingNode):
        return []
    lines: dict[str, list[str]] = {}
    for key, _ in node.value:
        lines.setdefault(str(key.value), []).append(str(key.start_mark.line + 1))
    doubled = [f"{key} (lines {' and '.join(given)})" for key, given in lines.items() if len(given) > 1]
    return doubled + [found for _, child in node.value for found in _doubled_keys(child)]
