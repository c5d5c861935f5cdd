"""The form that a client wants the answer to have: OpenAI's field, and the one of other servers."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from epd.errors import BadRequest
from epd.gateway.fields import Fields
from epd.grammar import any_of, json_text, lark_text, regex_text
from epd.types import MAX_GRAMMAR_BYTES

MAX_CHOICE_TEXTS = 1024


def _schema(value: Any) -> Any:
    """An object, or one as text."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise PydanticCustomError("schema", "is no JSON") from None
    if not isinstance(value, dict):
        raise PydanticCustomError("schema", "must be a JSON schema, which is an object")
    return value


Text = Annotated[str, Field(min_length=1, max_length=MAX_GRAMMAR_BYTES)]


class JsonSchema(Fields):
    """A schema with a name. It holds whether it is called strict or not."""

    name: str = Field(min_length=1, max_length=64)
    description: str | None = None
    strict: bool | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(Fields):
    """OpenAI's `response_format`."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    def grammar(self) -> tuple[str, str]:
        """The grammar, "" for any text, and the field that it comes from."""
        if self.type == "text":
            return "", ""
        if self.type == "json_object":
            return json_text({"type": "object"}), "response_format"
        where = "response_format.json_schema"
        if self.json_schema is None:
            raise BadRequest(f"type json_schema needs {where}", param=where)
        schema = self.json_schema.schema_
        return json_text({} if schema is None else schema), f"{where}.schema"


class StructuredOutputs(Fields):
    """`structured_outputs`: one of these."""

    neutral: ClassVar = {
        "disable_additional_properties": (False,),
        "disable_any_whitespace": (False,),
        "disable_fallback": (True, False),
        "structural_tag": (),
        "whitespace_pattern": (),
    }

    json_: Annotated[Any, AfterValidator(_schema)] | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: Text | None = None
    choice: Annotated[list[Text], Field(min_length=1, max_length=MAX_CHOICE_TEXTS)] | None = None
    grammar_: Text | None = Field(None, alias="grammar")

    def grammar(self) -> tuple[str, str]:
        """The grammar, and the field that it comes from."""
        wanted = {
            "json": None if self.json_ is None else json_text(self.json_),
            "json_object": json_text({"type": "object"}) if self.json_object else None,
            "regex": None if self.regex is None else regex_text(self.regex),
            "choice": None if self.choice is None else any_of(self.choice),
            "grammar": None if self.grammar_ is None else lark_text(self.grammar_),
        }
        given = [(text, name) for name, text in wanted.items() if text is not None]
        if len(given) != 1:
            raise BadRequest(
                f"structured_outputs needs one of {', '.join(wanted)}", param="structured_outputs"
            )
        text, name = given[0]
        return text, f"structured_outputs.{name}"


def wanted_grammar(
    response_format: ResponseFormat | None, structured: StructuredOutputs | None
) -> tuple[str, str]:
    """What an answer has to be, "" for any text, and the field that says so. BadRequest."""
    text, where = ("", "") if response_format is None else response_format.grammar()
    if structured is None:
        return text, where
    if text:
        raise BadRequest(
            "response_format and structured_outputs exclude each other", param="structured_outputs"
        )
    return structured.grammar()
