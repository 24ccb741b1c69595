"""Tested sets of attacks, so that nobody has to know which attacks make a number count.

`attacks: {panel: quick}` stands for one; `also` lists attacks beside it, `max_epochs` bounds the panel's budgets.
"""

from typing import Any

from cem.config.base import ConfigError

Attacks = list[dict[str, Any]]
_YARDSTICKS: Attacks = [{"kind": "mean_image"}, {"kind": "class_mean"}]
_DECODER: dict[str, Any] = {"kind": "decoder", "net": "res_normN2C16", "batch_size": 64}
_START = {"net": "res_normN4C32", "batch_size": 64}
QUICK: Attacks = [*_YARDSTICKS, {"kind": "linear"}, _DECODER]
STANDARD: Attacks = [
    *QUICK,
    _DECODER | {"name": "decoder_next", "net": "res_normN4C32"},
    _DECODER | {"name": "unet", "net": "unet_C32"},
    {"kind": "flow"},
]
PAPER: Attacks = [
    *STANDARD,
    _DECODER | {"name": "decoder_second", "net": "res_normN8C64"},
    {"kind": "gan", "start": "decoder", "decoder": _START, "epochs": 50, "net": _START["net"]},
    {"kind": "optimization", "start": "decoder", "decoder": _START, "steps": 200, "scored": 100},
    {"kind": "shadow_model", "decoder": _START},
]
_ENDING = ("decoder", "flow")  # fits whose budget ends by itself
_SETTINGS = {"panel", "also", "max_epochs"}
PANELS: dict[str, Attacks] = {"quick": QUICK, "standard": STANDARD, "paper": PAPER}


def with_panel(attacks: Any) -> Any:
    """The attacks that a study asks for, where it names a panel; anything else as it is.

    Raises ConfigError for a panel that does not exist, or settings that do not belong beside one.
    """
    if not isinstance(attacks, dict):
        return attacks
    if not isinstance(name := attacks.get("panel"), str) or name not in PANELS or not set(attacks) <= _SETTINGS:
        raise ConfigError(
            f"attacks: expected a list such as [{{kind: linear}}], or {{panel: {' | '.join(PANELS)}}} with a list "
            f"`also` and `max_epochs`, or without; found {attacks}"
        )
    also = attacks.get("also", [])
    if not isinstance(also, list):
        raise ConfigError(f"attacks.also: expected a list of attacks beside the panel's; found {also}")
    most = attacks.get("max_epochs")
    panel = PANELS[name] if most is None else [_within(attack, most) for attack in PANELS[name]]
    return [*panel, *also]


def _within(attack: dict[str, Any], max_epochs: Any) -> dict[str, Any]:
    """An attack of a panel whose own budgets, and those of what it starts from, end there."""
    if "decoder" in attack:
        return attack | {"decoder": attack["decoder"] | {"max_epochs": max_epochs}}
    return attack | {"max_epochs": max_epochs} if attack["kind"] in _ENDING else attack


def or_panel(schema: dict[str, Any]) -> None:
    """Beside the list, what stands for one."""
    attacks = {name: schema.pop(name) for name in ("type", "items", "minItems") if name in schema}
    most = {"type": "integer", "minimum": 8}
    properties = {"panel": {"enum": list(PANELS)}, "also": attacks, "max_epochs": most}
    panel = {"type": "object", "properties": properties, "required": ["panel"], "additionalProperties": False}
    schema["anyOf"] = [attacks, panel]
