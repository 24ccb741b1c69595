"""Reading a study from YAML, with every mistake named before any job starts."""

import json
import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cem.config.base import ConfigError
from cem.config.errors import describe
from cem.config.study import Study

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def load_study(path: str | Path) -> Study:
    """Read and check a study.

    Raises ConfigError, naming the file and every finding, when the file is absent, is no YAML, or asks for something
    that cannot be run.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a study in YAML; cannot read it: {error}") from None
    try:
        _refuse_doubled_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        settings = yaml.safe_load(text)
    except (yaml.YAMLError, ConfigError) as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    return parse_study(settings, str(path))


def parse_study(settings: Any, where: str) -> Study:
    """Check settings that were read already, such as Snakemake's `config`. `where` names them in errors."""
    if not isinstance(settings, dict):
        raise ConfigError(f"{where}: expected settings such as `name: ...`; found {type(settings).__name__}")
    try:
        text = json.dumps(_with_exponents(_as_now(settings)), allow_nan=True)
    except TypeError as error:
        raise ConfigError(f"{where}: expected text, numbers, lists and mappings; {error}") from None
    try:
        # JSON's strict mode takes lists for tuples, but neither "3" nor true for a number.
        return Study.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ConfigError(f"{where}: this study cannot be run:\n{describe(error, Study)}") from None


def _as_now(settings: dict[str, Any]) -> dict[str, Any]:
    """Up to version 0.1.0 `metrics` was a mapping, of LPIPS alone."""
    metrics, names = settings.get("metrics"), {"lpips_trunk": "trunk", "lpips_sha256": "sha256"}
    if not isinstance(metrics, dict) or not set(metrics) <= set(names):
        return settings
    chosen = {names[key]: value for key, value in metrics.items() if value is not None}
    return settings | {"metrics": [{"kind": "lpips"} | chosen] if chosen else []}


def _with_exponents(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; people mean the number."""
    if isinstance(value, dict):
        return {str(key): _with_exponents(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_exponents(item) for item in value]
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _refuse_doubled_keys(node: yaml.Node | None) -> None:
    """YAML keeps the last of two equal keys without a word; a study must not lose a setting that way."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        doubled = sorted({str(key) for key in keys if keys.count(key) > 1})
        if doubled:
            raise ConfigError(f"line {node.start_mark.line + 1}: given twice: {', '.join(doubled)}")
        for _, child in node.value:
            _refuse_doubled_keys(child)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_doubled_keys(child)
