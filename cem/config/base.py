"""What every settings class shares: frozen, closed, finite, with a stable short form and digest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from cem import CemError

Slug = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]{0,63}$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what every generator takes
TAGS = ("kind", "source")  # settings that tell the classes of a union apart


S = TypeVar("S", bound="Settings")


class ConfigError(CemError, ValueError):
    """A study that cannot be run as written."""


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    def sparse(self) -> dict[str, Any]:
        """The settings that differ from their defaults, and the tags that tell the classes of a union apart.

        A setting added to the program later, at a default that keeps the old behaviour, leaves this (and so every run's
        id) as it was: an upgrade does not retrain what has not changed.
        """
        settings = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            default = field.default  # as it is: pydantic's get_default copies it, for each of thousands of runs
            if field.default_factory is not None:
                default = field.get_default(call_default_factory=True, validated_data=self.__dict__)
            if name in TAGS or value != default:
                settings[name] = _plain(value)
        return settings

    def model_copy(self: S, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> S:
        """As pydantic's, without what was computed once of these settings: of the copy's it may be wrong."""
        copied = super().model_copy(update=update, deep=deep)
        for name in [name for name in copied.__dict__ if name not in type(self).model_fields]:
            del copied.__dict__[name]
        return copied

    def digest(self, digits: int = 8) -> str:
        """First hexadecimal digits of the SHA-256 of the sparse settings."""
        return digest(self.sparse(), digits)


def digest(value: Any, digits: int) -> str:
    """First hexadecimal digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.sparse()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value
