"""What the texts of one model's answers may contain beside plain words."""

from __future__ import annotations

from dataclasses import dataclass

THINK, END_THINK = "<think>", "</think>"
OPEN, CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerForm:
    """How one answer is read.

    `reasoning`: it may begin with `<think>`; `begun`: the prompt has opened that already. `calls`:
    its `<tool_call>` blocks are calls, all of them, or the first alone where `parallel` is false.
    """

    reasoning: bool = False
    begun: bool = False
    calls: bool = False
    parallel: bool = True


PLAIN = AnswerForm()
"""Nothing but text."""


def reasons(template: str) -> bool:
    """Whether a model with this chat template writes its reasoning between marks."""
    return THINK in template and END_THINK in template


def calls_tools(template: str) -> bool:
    """Whether a model with this chat template writes calls as Hermes and Qwen do."""
    return OPEN in template and CLOSE in template and "arguments" in template


def opens_reasoning(prompt: str) -> bool:
    """Whether the prompt's text ends inside of reasoning."""
    return prompt.rstrip().endswith(THINK)
