"""Fields of OpenAI's schema that have no effect here: what is accepted, what is refused.

A field that would change the answer and is not implemented is refused by name, unless it has the
value that changes nothing. A field that nobody knows is refused too: it may be a typing error.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from epd.errors import BadRequest


class Fields(BaseModel):
    """Base of all request objects. Values have their JSON type: "1" is no number."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    ignored: ClassVar[frozenset[str]] = frozenset()
    """Accepted with any value: labels that say nothing about the answer."""

    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Known but not implemented: only null and these values are accepted."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """With what is accepted beside the fields, and nothing else."""
        found = handler.resolve_ref_schema(handler(schema))
        shown = found.setdefault("properties", {})
        for name in sorted(cls.ignored):
            shown.setdefault(name, {"description": "changes nothing"})
        for name, values in sorted(cls.neutral.items()):
            shown.setdefault(name, {"enum": [None, *values]})
        found["additionalProperties"] = False
        return found

    def check_extra(self, path: str = "") -> None:
        """BadRequest with the path of the first field, here or below, that is not accepted."""
        for name, value in (self.model_extra or {}).items():
            self._check(name, value, path)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, Fields):
                value.check_extra(_join(path, name))
            elif isinstance(value, list):
                for i, entry in enumerate(value):
                    if isinstance(entry, Fields):
                        entry.check_extra(f"{_join(path, name)}[{i}]")

    def _check(self, name: str, value: Any, path: str) -> None:
        if name in self.ignored:
            return
        where = _join(path, name)
        if name not in self.neutral:
            raise BadRequest(f"unknown field: {where}", param=where, code="unknown_field")
        if value is not None and not any(_same(value, known) for known in self.neutral[name]):
            raise BadRequest(
                f"{where} is not supported by this server", param=where, code="unsupported_field"
            )


def _same(value: Any, known: Any) -> bool:
    """0 and 0.0 are the same, 0 and false are not."""
    return bool(value == known) and isinstance(value, bool) == isinstance(known, bool)


def _join(path: str, name: str) -> str:
    name = name if len(name) <= 100 else name[:100] + "..."
    return f"{path}.{name}" if path else name
