"""The messages of a chat: who says them, what they contain, which functions they call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from epd.errors import BadRequest
from epd.gateway.fields import Fields
from epd.gateway.parts import STRING, Content, TextContent
from epd.gateway.tools import MAX_CALLS, MAX_ID_CHARACTERS, Call
from epd.prompt import ItemPart, Message, TextPart

MAX_PARTS = 4096

PARTS = "<parts>"


def content_tag(value: Any) -> str | None:
    """Text, or a list of what it is made of."""
    return STRING if isinstance(value, str) else PARTS if isinstance(value, list) else None


class ChatMessage(Fields):
    """One turn. What a client gets as an answer can be sent back as the assistant's turn."""

    neutral: ClassVar = {
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "refusal": ("",),
    }

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: (
        Annotated[
            Annotated[str, Tag(STRING)]
            | Annotated[list[Content], Field(min_length=1, max_length=MAX_PARTS), Tag(PARTS)],
            Discriminator(
                content_tag,
                custom_error_type="content_type",
                custom_error_message="content must be a string or a list of parts",
            ),
        ]
        | None
    ) = None
    name: str | None = Field(None, max_length=256)
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = Field(None, max_length=MAX_CALLS)
    tool_call_id: str | None = Field(None, max_length=MAX_ID_CHARACTERS)

    def check(self, where: str) -> None:
        """Each role has its own fields. Only a turn of calls may be without content."""
        fields: list[tuple[str, Any, str]] = [
            ("tool_calls", self.tool_calls, "assistant"),
            ("reasoning_content", self.reasoning_content, "assistant"),
            ("tool_call_id", self.tool_call_id, "tool"),
        ]
        for name, value, role in fields:
            if value and self.role != role:
                raise BadRequest(
                    f"{where}.{name}: only of the role {role}", param=f"{where}.{name}"
                )
        if self.content is None and not self.tool_calls:
            raise BadRequest(
                f"{where}.content must be a string or a list of parts", param=f"{where}.content"
            )

    def to_prompt(self, items: Iterator[ItemPart], index: int) -> Message:
        """Takes its items from the front. OpenAI's "developer" is "system" to templates."""
        content: str | tuple[TextPart | ItemPart, ...] = ""
        if isinstance(self.content, list):
            content = tuple(
                TextPart(text=part.text) if isinstance(part, TextContent) else next(items)
                for part in self.content
            )
        elif self.content is not None:
            content = self.content
        return Message(
            role="system" if self.role == "developer" else self.role,
            content=content,
            name=self.name,
            tool_calls=tuple(
                call.to_prompt(f"messages[{index}].tool_calls[{j}]")
                for j, call in enumerate(self.tool_calls or ())
            ),
            tool_call_id=self.tool_call_id,
            reasoning=self.reasoning_content,
        )
