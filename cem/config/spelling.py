"""Two ways to write one setting."""

from collections.abc import Callable
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

WRITTEN, ALSO = "(as it is)", "(in short)"  # the tags of the two, which no study writes


class Also:
    """In `Annotated[Training, Also(is_none, Literal["none"], make)]`: what else a study may write for the setting.

    known: whether a value is written so. annotation: what it has to be. make: the setting from it. (Behind a
    validator that looks at the value first, as pydantic has them, lists would not count as tuples.)
    """

    def __init__(self, known: Callable[[Any], bool], annotation: Any, make: Callable[[Any], Any]) -> None:
        self.known, self.annotation, self.make = known, annotation, make

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Both ways."""
        other = core_schema.no_info_after_validator_function(self.make, handler.generate_schema(self.annotation))
        return core_schema.tagged_union_schema(
            {WRITTEN: handler(source), ALSO: other}, lambda value: ALSO if self.known(value) else WRITTEN
        )
