"""The registry: one family for each kind of thing that a study names; a member is a settings class and what it names.

A member joins by being defined: in the family's own file of `cem/config`, or in another package, under the family's
entry-point group (docs/extending.md). Everything else asks the settings for facts, and never for their type.
"""

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import cache, cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_args, get_origin

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from cem.config.base import ConfigError, Settings


class Member(Settings):
    """Settings of one member of a family. `implementation`: what does the work, as `module:name`.

    It is imported when it is first needed, so that settings need no torch. What it is called with, and what it must
    give, stands at the family's Protocol (docs/extending.md).
    """

    implementation: ClassVar[str]

    @property
    def member(self) -> str:
        """What a study calls it: the value of its tag."""
        return tag_of(type(self))[1]

    def load(self) -> Any:
        """The implementation. Raises ConfigError when it cannot be imported."""
        return load(self.implementation)


M = TypeVar("M", bound=Member)


def load(name: str) -> Any:
    """What `module:name` says. Raises ConfigError when it cannot be imported."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"expected the implementation {name}, cannot import it: {error}. Install the package that it belongs to, "
            "or correct the name in the settings class."
        ) from error


@cache
def tag_of(member: type[Settings]) -> tuple[str, str]:
    """Name and value of the tag that tells a member from the others: its one setting with a single choice.

    Raises ConfigError for a class without one.
    """
    for name, field in member.model_fields.items():
        choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        if name in Family.tags and choices == (field.default,):
            return name, choices[0]
    raise ConfigError(
        f"{member.__module__}:{member.__name__}: expected a tag such as kind: Literal['mine'] = 'mine', found none of "
        f"{', '.join(Family.tags)}. Add one."
    )


class Family(Generic[M]):
    """All members of one kind. A setting of a study that names one is `Annotated[AttackSettings, ATTACKS]`.

    name: in the singular, as errors say it. base: what all members extend. tag: the setting that tells them apart.
    default: the member that is meant where the tag is left out; None: it must be given. modules: the files of the
    project's own members, in their order, all imported by cem.config; none: that of the base.
    """

    tags: ClassVar[tuple[str, ...]] = ("kind", "source", "arch")
    of_base: ClassVar[dict[type[Settings], "Family[Any]"]] = {}

    def __init__(
        self,
        name: str,
        base: type[M],
        tag: str = "kind",
        default: str | None = None,
        modules: tuple[str, ...] = (),
    ) -> None:
        self.name, self.base, self.tag, self.default = name, base, tag, default
        self.modules = modules or (base.__module__,)
        self.of_base[base] = self

    @property
    def group(self) -> str:
        """The entry-point group by which other packages add members."""
        return f"cem.{self.name}s"

    @cached_property
    def members(self) -> dict[str, type[M]]:
        """Tag's value → settings class: the project's own in the order of their file, then those of other packages.

        Raises ConfigError, naming both, when two have the same tag, and for an entry point that is no member.
        """
        found: dict[str, type[M]] = {}
        for member in [*self._own(), *map(self._entered, sorted(entry_points(group=self.group)))]:
            tag, value = tag_of(member)
            if tag != self.tag:
                raise ConfigError(f"{_path(member)}: expected the tag {self.tag!r} of a {self.name}, found {tag!r}.")
            if found.setdefault(value, member) is not member:
                raise ConfigError(
                    f"two {self.name}s are called {value!r}: {_path(found[value])} and {_path(member)}. Rename one, "
                    "or uninstall its package."
                )
        return found

    def _own(self) -> Iterator[type[M]]:
        for module in self.modules:
            for value in vars(sys.modules[module]).values():
                is_own = isinstance(value, type) and issubclass(value, self.base) and value.__module__ == module
                if is_own and hasattr(value, "implementation"):  # without one it is what some members share
                    yield value

    def _entered(self, entry: EntryPoint) -> type[M]:
        package = f" of the package {entry.dist.name}" if entry.dist else ""
        where = f"the {self.name} {entry.name!r}{package} ({entry.value})"
        try:
            member = entry.load()
        except Exception as error:  # whatever another package raises while it is imported
            raise ConfigError(
                f"{where}: cannot be imported: {type(error).__name__}: {error}. Correct or uninstall it."
            ) from error
        if not (isinstance(member, type) and issubclass(member, self.base)):
            raise ConfigError(f"{where}: expected a subclass of {_path(self.base)}, found {member!r}. Correct it.")
        return member

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The union of all members, put together when a study is first read: other packages import this one."""
        choices = {value: handler.generate_schema(member) for value, member in self.members.items()}
        discriminator: str | Callable[[Any], Any] = self.tag if self.default is None else self._tag_or_default
        return core_schema.tagged_union_schema(choices, discriminator)

    def _tag_or_default(self, value: Any) -> Any:
        tag = value.get(self.tag, self.default) if isinstance(value, dict) else getattr(value, self.tag, None)
        return tag.partition(":")[0] if isinstance(tag, str) else tag  # what follows is the member's to read


def choices_of(model: type[Settings]) -> list[type[Settings]]:
    """The classes that a field of this class may hold: the members where it is the base of a family."""
    family = Family.of_base.get(model)
    return [model] if family is None else list(family.members.values())


def _path(member: type[Settings]) -> str:
    return f"{member.__module__}:{member.__name__}"
