"""Prompts of an offline engine: text or token ids, with what is in memory beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from epd.errors import BadRequest
from epd.llm.items import read_items

FIELDS = (
    "prompt",
    "prompt_token_ids",
    "multi_modal_data",
    "multi_modal_uuids",
    "mm_processor_kwargs",
    "media_io_kwargs",
    "cache_salt",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt as it was given: `content` is text or token ids."""

    content: str | list[int]
    data: Mapping[str, Any] = field(default_factory=dict)
    uuids: Mapping[str, Any] = field(default_factory=dict)
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str | None:
        """What the output shows of it."""
        return self.content if isinstance(self.content, str) else None

    def body(self) -> dict[str, Any]:
        """The fields of a request that are this prompt. Items are read and written here."""
        items = read_items(self.data, self.uuids)
        io = with_frames(self.said.get("media_io_kwargs"), items.frames)
        body = {**self.said, "prompt": self.content, "media_io_kwargs": io, "items": items.parts}
        return {name: value for name, value in body.items() if value not in (None, [], {})}


def with_frames(io: Mapping[str, Any] | None, frames: Mapping[str, Any]) -> dict[str, Any]:
    """`media_io_kwargs` of a request, with what is true of its frames."""
    found = dict(io or {})
    if frames:
        found["video"] = {**found.get("video", {}), **frames}
    return found


def read_prompts(prompts: Any) -> list[Prompt]:
    """One prompt, or a list of them."""
    if isinstance(prompts, str | Mapping) or _are_ids(prompts):
        prompts = [prompts]
    if not isinstance(prompts, Sequence):
        raise BadRequest("prompts must be text, an object, or a list of such", param="prompts")
    return [_read(one, f"prompts[{number}]") for number, one in enumerate(prompts)]


def _read(one: Any, where: str) -> Prompt:
    if isinstance(one, str):
        return Prompt(content=one)
    if _are_ids(one):
        return Prompt(content=list(one))
    if not isinstance(one, Mapping):
        raise BadRequest(f"{where} must be text or an object", param=where)
    if unknown := sorted(set(one) - set(FIELDS)):
        raise BadRequest(f"{where}: unknown field: {unknown[0]}", param=f"{where}.{unknown[0]}")
    named = ("mm_processor_kwargs", "media_io_kwargs", "cache_salt")
    return Prompt(
        content=_content(one, where),
        data=one.get("multi_modal_data") or {},
        uuids=one.get("multi_modal_uuids") or {},
        said={name: one[name] for name in named if one.get(name) is not None},
    )


def _content(one: Mapping[str, Any], where: str) -> str | list[int]:
    for name in ("prompt", "prompt_token_ids"):
        value = one.get(name)
        if isinstance(value, str):
            return value
        if _are_ids(value):
            return list(value)
    raise BadRequest(f"{where}: prompt is missing", param=f"{where}.prompt")


def _are_ids(value: Any) -> TypeGuard[Sequence[int]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(one, int) for one in value)
    )
