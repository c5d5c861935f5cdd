"""How the answers of one model are read: what its chat template shows, and the operator's word."""

from __future__ import annotations

from epd.config import GatewayConfig
from epd.errors import BadRequest
from epd.gateway.tools import Offer
from epd.prompt import Draft, PromptBuilder, Template
from epd.prompt.calls import AnswerForm, answer_grammar
from epd.types import MAX_GRAMMAR_BYTES


class Forms:
    """Made once for a model."""

    def __init__(self, builder: PromptBuilder, config: GatewayConfig) -> None:
        self._builder = builder
        self._reasoning, self._calls = config.reasoning_format, config.tool_call_format

    def of(self, draft: Draft, template: Template, offer: Offer, *, parallel: bool) -> AnswerForm:
        """The form of an answer to a prompt that this template made. BadRequest if its calls could
        not be read."""
        calls = template.calls_tools if self._calls == "auto" else self._calls == "hermes"
        reasons = template.reasons if self._reasoning == "auto" else self._reasoning == "think"
        if offer.shown and not calls:
            raise BadRequest(
                "tools: the form in which this model calls functions is not known here",
                param="tools",
            )
        return AnswerForm(
            reasoning=reasons,
            begun=reasons and self._builder.opens_reasoning(draft),
            calls=bool(offer.shown),
            parallel=parallel,
        )

    def grammar(self, offer: Offer, form: AnswerForm, answer: str) -> str:
        """Of such an answer, the text of which has the grammar `answer`; "" where all is free.

        Calls that are free have to be right only where one of the functions is strict.
        """
        if not answer and not offer.binds:
            return ""
        found = answer_grammar(
            form,
            offer.functions,
            must_call=offer.must_call,
            answer=answer,
            tokens=self._builder.added_tokens,
        )
        if len(found.encode()) > MAX_GRAMMAR_BYTES:
            raise BadRequest("tools: their schemas are too large to be followed", param="tools")
        return found
