"""Renders a checkpoint's chat template, in transformers' sandbox, with special tokens hidden.

A template may take a message's content as a string, as a list of parts, or either, and may differ
by role: that is found out by rendering probes when the template is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from epd.errors import BadRequest, ConfigError
from epd.prompt.aliases import Aliases
from epd.prompt.chat import Message, TextPart
from epd.types import Modality

ROLES = ("user", "system", "assistant")

_PROBE = "epdprobe"
# What code inside a template raises on content that it does not expect.
_REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class Template:
    """One checkpoint's template. `strings` and `parts` name the roles whose content may be such.

    Rendered text contains aliases in place of special tokens (see `Aliases`). Thread-safe.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        source: str,
        aliases: Aliases,
        placeholders: Mapping[Modality, str],
    ) -> None:
        self._tokenizer = tokenizer
        self._source = aliases.hide(source)
        self._named_tokens = aliases.hide(tokenizer.special_tokens_map)
        self._aliases = aliases
        self._placeholders = placeholders
        self.strings: set[str] = set()
        self.parts: set[str] = set()
        for role in ROLES:
            self._find_format(role)
        self._check_aliases(source)

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt's text up to where the assistant begins to answer."""
        try:
            return self._render([self._as_dict(message) for message in messages])
        except _REFUSALS as error:
            reason = self._aliases.show(str(error)) or type(error).__name__
            raise BadRequest(
                f"the model's chat template refuses these messages: {reason}", param="messages"
            ) from error

    def _render(self, messages: list[dict[str, Any]], source: str | None = None) -> str:
        """With a `source` that hides nothing, the named tokens are not hidden either."""
        text = self._tokenizer.apply_chat_template(
            messages,
            chat_template=source or self._source,
            add_generation_prompt=True,
            tokenize=False,
            **({} if source else self._named_tokens),
        )
        assert isinstance(text, str)
        return text

    def _as_dict(self, message: Message) -> dict[str, Any]:
        fields: dict[str, Any] = {"role": message.role, "content": self._content(message)}
        return fields if message.name is None else {**fields, "name": message.name}

    def _content(self, message: Message) -> Any:
        """The content in a form that the template takes, else in the form that it came in.

        An item has its kind as its type and, as in Hugging Face's chats, as a key: some templates
        look for one of them, some for the other.
        """
        role = message.role if message.role in ROLES else "user"
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
        return [probe, user] if role == "system" else [user, probe, user]

    def _check_aliases(self, source: str) -> None:
        """Every special token in rendered text must be an alias, or it would be read as text."""
        for role in ROLES:
            if role not in self.strings | self.parts:
                continue
            content: Any = "hi" if role in self.strings else [{"type": "text", "text": "hi"}]
            hidden = self._render(self._probe(role, content))
            if self._aliases.show(hidden) != self._render(self._probe(role, content), source):
                raise ConfigError("the chat template renders differently with its tokens hidden")
            if self._aliases.count_plain(hidden):
                raise ConfigError("the chat template builds special tokens from pieces")
