"""How much a model is to think, in the words of its chat template. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from epd.errors import BadRequest

FIELD = "reasoning_effort"
NONE = "none"
SWITCHES = ("enable_thinking", "thinking")
"""What templates call a switch that is on or off."""


def with_effort(
    arguments: Mapping[str, Any], effort: str | None, reads: Collection[str], *, reasons: bool
) -> dict[str, Any]:
    """The arguments of a template that `reads` these names, with the effort that was asked for.

    One that knows only a switch has it off for "none", else on. BadRequest where the effort would
    change nothing: "none" is taken of a model that never `reasons`.
    """
    if effort is None:
        return dict(arguments)
    said: dict[str, Any] = {FIELD: effort} if FIELD in reads else {}
    said |= {name: effort != NONE for name in SWITCHES if name in reads}
    if not said and (effort != NONE or reasons):
        raise BadRequest(
            f"{FIELD}: the model's chat template reads neither it nor {' nor '.join(SWITCHES)}",
            param=FIELD,
        )
    for name in said:
        if name in arguments and arguments[name] != said[name]:
            raise BadRequest(
                f"{FIELD} says another thing than chat_template_kwargs.{name}; give one",
                param=FIELD,
            )
    return {**arguments, **said}
