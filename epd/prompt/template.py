"""Makes prompts of chats by a chat template, in transformers' sandbox, special tokens hidden.

A template may take a message's content as a string, as a list of parts, or either, and may differ
by role: that is found out by rendering probes when the template is loaded.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from epd.errors import BadRequest, ConfigError
from epd.prompt.aliases import Aliases
from epd.prompt.calls import calls_tools, reasons
from epd.prompt.chat import Message, Rendering, TextPart, ToolCall
from epd.prompt.effort import with_effort
from epd.prompt.renderer import OwnRenderer, Renderer
from epd.types import Modality

ROLES = ("user", "system", "assistant")
TOOL = "tool"

_PROBE = "epdprobe"
_CALL_ID = "probe0001"  # some templates count its characters
_OURS = frozenset(inspect.signature(PreTrainedTokenizerFast.apply_chat_template).parameters)
# What renders a template takes these names for itself; a template reads the chat as `messages`.
_RESERVED = _OURS | {"messages", "conversations"}
_CHAT = Rendering()
# What code inside a template raises on content that it does not expect.
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class Template:
    """One checkpoint's template. `strings` and `parts` name the roles whose content may be such;
    `reads` has the variables that it looks at; `reasons` and `calls_tools` say what answers may
    contain.

    Rendered text contains aliases in place of special tokens (see `Aliases`). `renderer` runs its
    code, this process unless given. Thread-safe.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        source: str,
        aliases: Aliases,
        placeholders: Mapping[Modality, str],
        renderer: Renderer | None = None,
    ) -> None:
        self._renderer = renderer or OwnRenderer(tokenizer)
        self.reads = self._renderer.variables(source)
        self.reasons = reasons(source)
        self.calls_tools = calls_tools(source)
        self._shows_calls = "tool_calls" in source
        self._shows_results = re.search(r"""['"]tool['"]""", source) is not None
        self._source = aliases.hide(source)
        self._plain_tokens = tokenizer.special_tokens_map
        self._named_tokens = aliases.hide(self._plain_tokens)
        self._aliases = aliases
        self._placeholders = placeholders
        self.strings: set[str] = set()
        self.parts: set[str] = set()
        self._roles = (*ROLES, TOOL) if self._shows_results else ROLES
        for role in self._roles:
            self._find_format(role)
        self._check_aliases(source)

    def render(self, messages: Sequence[Message], rendering: Rendering = _CHAT) -> str:
        """The prompt's text up to where the assistant begins to answer, or goes on."""
        self._check_arguments(rendering)
        self._check_calls(messages)
        arguments = with_effort(
            rendering.arguments, rendering.effort, self.reads, reasons=self.reasons
        )
        rendering = replace(rendering, arguments=arguments)
        try:
            return self._render([self._as_dict(message) for message in messages], rendering)
        except _REFUSALS as error:
            if rendering.continue_final_message and isinstance(error, ValueError):
                raise BadRequest(
                    "the model's chat template does not show the end of the last message, so it "
                    "cannot be continued",
                    param="continue_final_message",
                ) from error
            reason = self._aliases.show(str(error)) or type(error).__name__
            raise BadRequest(
                f"the model's chat template refuses these messages: {reason}", param="messages"
            ) from error

    def _check_arguments(self, rendering: Rendering) -> None:
        """What the template never reads is refused: nobody would notice that it had no effect."""
        for name in rendering.arguments:
            where = f"chat_template_kwargs.{name[:100]}"
            if name in _RESERVED or name in self._named_tokens:
                raise BadRequest(f"{where}: cannot be set here", param=where)
            if name not in self.reads:
                raise BadRequest(f"{where}: the model's chat template never reads it", param=where)
        if rendering.tools and "tools" not in self.reads:
            raise BadRequest("tools: the model's chat template never reads them", param="tools")
        opens = rendering.add_generation_prompt or rendering.continue_final_message
        if not opens and "add_generation_prompt" not in self.reads:
            raise BadRequest(
                "add_generation_prompt: the model's chat template never reads it",
                param="add_generation_prompt",
            )

    def _check_calls(self, messages: Sequence[Message]) -> None:
        for i, message in enumerate(messages):
            if message.tool_calls and not self._shows_calls:
                where, what = f"messages[{i}].tool_calls", "tool calls"
            elif message.role == "tool" and not self._shows_results:
                where, what = f"messages[{i}].role", "what tools answer"
            else:
                continue
            raise BadRequest(f"{where}: the model's chat template never shows {what}", param=where)

    def _render(
        self,
        messages: list[dict[str, Any]],
        rendering: Rendering = _CHAT,
        source: str | None = None,
    ) -> str:
        """With a `source` that hides nothing, the named tokens are not hidden either."""
        named = self._plain_tokens if source else self._named_tokens
        return self._renderer.render(source or self._source, messages, rendering, named)

    def _as_dict(self, message: Message) -> dict[str, Any]:
        fields: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        told = {
            "name": message.name,
            "tool_call_id": message.tool_call_id,
            "reasoning_content": message.reasoning,
        }
        fields |= {name: value for name, value in told.items() if value is not None}
        if message.tool_calls:
            fields["tool_calls"] = [_call_as_dict(call) for call in message.tool_calls]
        return fields

    def _content(self, message: Message) -> Any:
        """The content in a form that the template takes, else in the form that it came in.

        An item has its kind as its type and, as in Hugging Face's chats, as a key: some templates
        look for one of them, some for the other.
        """
        role = message.role if message.role in self._roles else "user"
        if isinstance(message.content, str):
            alone = role in self.parts and role not in self.strings
            return [{"type": "text", "text": message.content}] if alone else message.content
        if role in self.strings and role not in self.parts:
            return "\n".join(
                part.text
                if isinstance(part, TextPart)
                else self._aliases.alias_of(self._placeholders[part.modality])
                for part in message.content
            )
        return [
            {"type": "text", "text": part.text}
            if isinstance(part, TextPart)
            else {"type": part.modality.value, part.modality.value: part.modality.value}
            for part in message.content
        ]

    def _find_format(self, role: str) -> None:
        if self._shows_probe(role, _PROBE):
            self.strings.add(role)
        if self._shows_probe(role, [{"type": "text", "text": _PROBE}]):
            self.parts.add(role)
        if role == "user" and not self.strings | self.parts:
            raise ConfigError("the chat template shows neither string content nor text parts")

    def _shows_probe(self, role: str, content: Any) -> bool:
        try:
            text = self._render(self._probe(role, content))
        except _REFUSALS:
            return False
        # A list that is printed instead of being walked through shows the probe in quotes.
        return _PROBE in text and f"'{_PROBE}" not in text and f'"{_PROBE}' not in text

    def _probe(self, role: str, content: Any) -> list[dict[str, Any]]:
        """The shortest chat in which most templates accept this role."""
        probe = {"role": role, "content": content}
        if role == "user":
            return [probe]
        user = self._as_dict(Message(role="user", content="hi"))
        if role == "system":
            return [probe, user]
        if role != TOOL:
            return [user, probe, user]
        call = ToolCall(id=_CALL_ID, name="f", arguments={"a": 1})
        turn = Message(role="assistant", content="", tool_calls=(call,))
        return [user, self._as_dict(turn), probe | {"tool_call_id": _CALL_ID}]

    def _check_aliases(self, source: str) -> None:
        """Every special token in rendered text must be an alias, or it would be read as text."""
        for role in self._roles:
            if role not in self.strings | self.parts:
                continue
            content: Any = "hi" if role in self.strings else [{"type": "text", "text": "hi"}]
            hidden = self._render(self._probe(role, content))
            if self._aliases.show(hidden) != self._render(
                self._probe(role, content), source=source
            ):
                raise ConfigError("the chat template renders differently with its tokens hidden")
            if self._aliases.count_plain(hidden):
                raise ConfigError("the chat template builds special tokens from pieces")


def _call_as_dict(call: ToolCall) -> dict[str, Any]:
    """As Hugging Face's chats have it: the arguments are no text."""
    function = {"name": call.name, "arguments": call.arguments}
    named = {} if call.id is None else {"id": call.id}
    return {"type": "function", **named, "function": function}
