"""What holds for the settings of every registered member, whatever its family."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from cem.config import FAMILIES, Family, Member, Settings
from cem.config.registry import tag_of

from .examples import cases, reader, without_example

CASES = [
    pytest.param(family, *case.values, id=f"{family.name} {case.id}")
    for family in FAMILIES
    for case in cases(family, working=False)
]
EACH = pytest.mark.parametrize(("family", "cfg"), CASES)
FAMILY_OF = {member: family for family in FAMILIES for member in family.members.values()}
MEMBERS = pytest.mark.parametrize(
    ("family", "member"),
    [pytest.param(family, member, id=f"{family.name} {tag_of(member)[1]}") for member, family in FAMILY_OF.items()],
)


def backwards(value: Any) -> Any:
    """The same with its keys in the opposite order, at every depth."""
    if isinstance(value, dict):
        return {key: backwards(item) for key, item in reversed(value.items())}
    return [backwards(item) for item in value] if isinstance(value, list) else value


def as_written(cfg: Settings) -> dict[str, Any]:
    """Settings as a file holds them: lists for tuples."""
    return json.loads(json.dumps(cfg.sparse()))


def test_every_member_has_settings_that_the_laws_can_try() -> None:
    assert not without_example(), "\n".join(without_example())


@MEMBERS
def test_a_member_describes_itself_and_all_of_its_settings(family: Family, member: type[Member]) -> None:
    assert (member.__dict__.get("__doc__") or "").strip(), f"{member.__name__}: expected a docstring of its own"
    silent = [name for name, field in member.model_fields.items() if not field.description and name != family.tag]
    assert not silent, f"{member.__name__}: expected a description of {silent}"


@MEMBERS
def test_a_tag_has_one_choice_and_the_family_knows_it(family: Family, member: type[Member]) -> None:
    tag, value = tag_of(member)
    assert tag == family.tag
    assert family.members[value] is member
    other = {name: field.default for name, field in member.model_fields.items() if name in Family.tags and name != tag}
    assert not other, f"{member.__name__}: expected no tag beside {tag}"


@EACH
def test_the_implementation_is_there(family: Family, cfg: Member) -> None:
    assert cfg.load() is not None
    assert cfg.member == tag_of(type(cfg))[1]


@EACH
def test_what_is_written_down_is_read_back(family: Family, cfg: Member) -> None:
    again = reader(family).validate_json(json.dumps(as_written(cfg)), strict=True)
    assert type(again) is type(cfg)
    assert again == cfg
    assert reader(family).validate_json(cfg.model_dump_json(), strict=True) == cfg


@EACH
def test_a_digest_does_not_depend_on_the_order_of_settings(family: Family, cfg: Member) -> None:
    again = reader(family).validate_json(json.dumps(backwards(as_written(cfg))), strict=True)
    assert again.digest(64) == cfg.digest(64)


@EACH
def test_a_default_written_out_changes_no_digest(family: Family, cfg: Member) -> None:
    again = reader(family).validate_json(cfg.model_dump_json(), strict=True)
    assert again.digest(64) == cfg.digest(64)


@EACH
def test_settings_are_frozen_and_closed(family: Family, cfg: Member) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(cfg, family.tag, cfg.member)
    with pytest.raises(ValidationError, match="extra_forbidden"):
        reader(family).validate_json(json.dumps(as_written(cfg) | {"no_such_setting": 1}))
