"""Who runs the code of a chat template: this process, or one that may be lost.

A template of the operator's is trusted to end; one that a request brings is not.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from epd.errors import BadRequest, ConfigError
from epd.grammar import BoundedProcess, Lost
from epd.prompt.chat import Rendering
from epd.prompt.variables import variables_of

Turns = list[dict[str, Any]]


class Renderer(Protocol):
    """In transformers' sandbox in any case."""

    def variables(self, source: str) -> frozenset[str]:
        """What the template takes from whoever renders it. ConfigError if it is broken."""
        ...

    def render(
        self, source: str, messages: Turns, rendering: Rendering, named: Mapping[str, Any]
    ) -> str:
        """The prompt's text; `named` are the special tokens that templates know by name. Raises
        whatever code inside of a template raises."""
        ...


class OwnRenderer:
    """Here, as Hugging Face's tokenizer does it."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer

    def variables(self, source: str) -> frozenset[str]:
        """Nothing is rendered."""
        return variables_of(source)

    def render(
        self, source: str, messages: Turns, rendering: Rendering, named: Mapping[str, Any]
    ) -> str:
        """Takes as long as it takes."""
        text = self._tokenizer.apply_chat_template(
            messages,
            chat_template=source,
            add_generation_prompt=rendering.add_generation_prompt,
            continue_final_message=rendering.continue_final_message,
            tokenize=False,
            tools=list(rendering.tools) or None,
            **rendering.arguments,
            **named,
        )
        assert isinstance(text, str)
        return text


class BoundedRenderer:
    """In a process of its own, for a bounded time. Thread-safe; one question at a time."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._process = BoundedProcess("epd.prompt.child", dict, timeout_s=timeout_s)
        self._lock = threading.Lock()

    def close(self) -> None:
        """Rendering that is under way ends."""
        self._process.close()

    def variables(self, source: str) -> frozenset[str]:
        """BadRequest where that takes too long."""
        said = self._ask({"source": source})
        if "refused" in said:
            raise ConfigError(said["refused"])
        return frozenset(said["variables"])

    def render(
        self, source: str, messages: Turns, rendering: Rendering, named: Mapping[str, Any]
    ) -> str:
        """BadRequest where that takes too long or too much memory."""
        said = self._ask(
            {
                "source": source,
                "messages": messages,
                "add_generation_prompt": rendering.add_generation_prompt,
                "continue_final_message": rendering.continue_final_message,
                "tools": list(rendering.tools) or None,
                "arguments": {**rendering.arguments, **named},
            }
        )
        if "refused" in said:
            raise (
                ValueError(said["refused"]) if said["by_value"] else TemplateError(said["refused"])
            )
        return str(said["text"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            with self._lock:
                return self._process.ask(question)
        except Lost as lost:
            why = f"takes longer than {self._timeout_s:g} s" if lost.late else "takes too much"
            raise BadRequest(
                f"chat_template: {why} to be rendered", param="chat_template"
            ) from None
