"""The registry: who joins a family, who cannot, and what a study is told that names a member wrongly."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cem.config import FAMILIES, ConfigError, DefenseSettings, Family, Vgg11, load, parse_study
from cem.config.base import TAGS
from cem.config.defense import DEFENSES
from cem.config.model import MODELS

from .examples import reader

ROOT = Path(__file__).parents[3]
MINE = """
from typing import ClassVar, Literal
from pydantic import Field
from cem.config import DefenseSettings, ModelSettings

class OfThisTest(DefenseSettings):
    "Rounds z."
    kind: Literal["of_this_test"] = "of_this_test"
    implementation = "cem_mine_absent:OfThisTest"
    order = 15
    digits: int = Field(2, ge=0, description="digits that are left")

    @property
    def label(self) -> str:
        return f"of_this_test{self.digits}"

class Twin(OfThisTest):
    "Has the name of one that is there."
    kind: Literal["dropout"] = "dropout"

class Nameless(DefenseSettings):
    "Has no tag."

class Sourced(DefenseSettings):
    "Has the tag of another family."
    source: Literal["mine"] = "mine"

class Small(ModelSettings):
    "An architecture."
    arch: Literal["of_this_test"] = Field("of_this_test", description="architecture")
    implementation = "cem_mine_absent:build"
    stages: ClassVar[int] = 9

A_NUMBER = 3
"""
PLACES: dict[str, Callable[[str], dict[str, Any]]] = {  # family → where a study names a member
    "surrogate": lambda kind: {"surrogates": [{"kind": kind}]},
    "defense": lambda kind: {"defenses": [{"kind": kind}]},
    "attack": lambda kind: {"attacks": [{"kind": kind}]},
    "model": lambda kind: {"model": {"arch": kind}},
    "dataset": lambda kind: {"dataset": {"source": kind}},
    "metric": lambda kind: {"metrics": [{"kind": kind}]},
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Installs a package cem-mine, whose module `cem_mine` has entry points in the group of a family."""

    def installed(group: str, *values: str, code: str = MINE) -> None:
        (tmp_path / "cem_mine.py").write_text(code)
        meta = tmp_path / "cem_mine-1.0.dist-info"
        meta.mkdir()
        (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: cem-mine\nVersion: 1.0\n")
        names = "\n".join(f"member{number} = {value}" for number, value in enumerate(values))
        (meta / "entry_points.txt").write_text(f"[{group}]\n{names}\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "cem_mine", None)  # so that what is imported is forgotten after the test
        monkeypatch.delitem(sys.modules, "cem_mine")

    return installed


def unread(family: Family[Any]) -> Family[Any]:
    """The family as it is before its members are first asked for; not known to settings classes."""
    fresh = copy.copy(family)
    fresh.__dict__.pop("members", None)
    return fresh


def test_a_member_of_another_package_comes_after_the_projects_own(install) -> None:
    before = list(DEFENSES.members)
    own = [kind for kind in before if DEFENSES.members[kind].__module__.startswith("cem.")]
    install("cem.defenses", "cem_mine:OfThisTest")
    family = unread(DEFENSES)
    assert list(family.members)[: len(own)] == own
    assert sorted(family.members) == sorted([*before, "of_this_test"])
    read = reader(family).validate_python({"kind": "of_this_test", "digits": 3})
    assert read.sparse() == {"kind": "of_this_test", "digits": 3}


def test_a_member_given_twice_by_one_package_is_one(install) -> None:
    install("cem.defenses", "cem_mine:OfThisTest", "cem_mine:OfThisTest")
    assert "of_this_test" in unread(DEFENSES).members


def test_two_members_of_one_kind_are_an_error_that_names_both(install) -> None:
    install("cem.defenses", "cem_mine:Twin")
    with pytest.raises(ConfigError) as caught:
        _ = unread(DEFENSES).members
    for part in ("two defenses are called 'dropout'", "cem.config.defense:Dropout", "cem_mine:Twin", "Rename one"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("value", "code", "message"),
    [
        ("cem_mine:A_NUMBER", MINE, "expected a subclass of cem.config.defense_base:DefenseSettings, found 3"),
        ("cem_mine:Small", MINE, "expected a subclass of cem.config.defense_base:DefenseSettings, found <class"),
        ("cem_mine:Absent", MINE, "cannot be imported: AttributeError"),
        ("cem_mine:OfThisTest", "raise OSError('no licence')", "cannot be imported: OSError: no licence"),
        ("cem_mine:OfThisTest", "def", "cannot be imported: SyntaxError"),
    ],
)
def test_an_entry_point_that_is_no_member_is_named_with_its_package(install, value, code, message) -> None:
    install("cem.defenses", value, code=code)
    with pytest.raises(ConfigError) as caught:
        _ = unread(DEFENSES).members
    assert f"the defense 'member0' of the package cem-mine ({value}): {message}" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nameless", r"cem_mine:Nameless: expected a tag such as kind.*found none of kind, source, arch"),
        ("Sourced", r"cem_mine:Sourced: expected the tag 'kind' of a defense, found 'source'"),
    ],
)
def test_a_member_without_its_familys_tag_is_refused(install, name, message) -> None:
    install("cem.defenses", f"cem_mine:{name}")
    with pytest.raises(ConfigError, match=message):
        _ = unread(DEFENSES).members


def test_an_implementation_that_cannot_be_imported_is_named(install) -> None:
    install("cem.defenses", "cem_mine:OfThisTest")
    cfg = unread(DEFENSES).members["of_this_test"]()
    with pytest.raises(ConfigError, match=r"expected the implementation cem_mine_absent:OfThisTest, cannot import it"):
        cfg.load()
    with pytest.raises(ConfigError, match=r"cem\.defenses\.topk:Absent.*has no attribute"):
        load("cem.defenses.topk:Absent")


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_misspelt_member_is_told_the_near_one_and_all_others(family: Family, settings) -> None:
    kind = max(family.members, key=len)
    with pytest.raises(ConfigError) as caught:
        parse_study(settings(**PLACES[family.name](f"{kind}-")), "here")
    assert f"did you mean {kind!r}?" in str(caught.value)
    assert f"expected one of {', '.join(map(repr, family.members))}; found '{kind}-'" in str(caught.value)


def test_gmn_is_gmm_and_a_name_like_none_gets_no_suggestion(settings) -> None:
    with pytest.raises(
        ConfigError, match=r"'none', 'gmm', 'gaussian', 'pair', 'attention'.*; found 'gmn'; did you mean 'gmm'\?"
    ):
        parse_study(settings(surrogates=[{"kind": "gmn"}]), "here")
    with pytest.raises(ConfigError, match=r"found 'zzzz'$"):
        parse_study(settings(surrogates=[{"kind": "zzzz"}]), "here")


def test_a_model_without_an_architecture_is_vgg11_and_does_not_name_it(install) -> None:
    install("cem.models", "cem_mine:Small")
    read = reader(unread(MODELS)).validate_python
    plain, small = read({"width": 0.5}), read({"arch": "of_this_test"})
    assert plain == read({"arch": "vgg11", "width": 0.5}) == Vgg11(width=0.5)
    assert plain.sparse() == {"width": 0.5}
    assert small.sparse() == {"arch": "of_this_test"}
    assert small.digest() != read({}).digest()


def test_families_have_their_groups_and_tags() -> None:
    groups = ["cem.surrogates", "cem.defenses", "cem.attacks", "cem.models", "cem.datasets", "cem.metrics"]
    assert [family.group for family in FAMILIES] == groups
    assert {family.tag for family in FAMILIES} == set(Family.tags)
    assert {family.tag for family in FAMILIES if family.default is None} == set(TAGS)  # those that sparse always names
    assert all(Family.of_base[family.base] is family for family in FAMILIES)
    assert Family.of_base[DefenseSettings] is DEFENSES


def test_settings_need_no_torch() -> None:
    program = """
import sys
import cem.config
for family in cem.config.FAMILIES:
    print(family.name, *family.members)
heavy = [name for name in ("torch", "torchvision", "pandas", "matplotlib") if name in sys.modules]
assert not heavy, f"imported: {heavy}"
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [" ".join([family.name, *family.members]) for family in FAMILIES]
