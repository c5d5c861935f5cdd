"""From a form with a file to a chat about it."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from epd.errors import BadRequest
from epd.gateway.front import Front, Prepared
from epd.gateway.places import named_as
from epd.gateway.schemas import MAX_TOKENS, ChatRequest
from epd.gateway.service import CallSpec
from epd.gateway.shapes import ChatShape
from epd.gateway.transcriptions.form import read_form
from epd.gateway.turns import ChatMessage

PROMPT = "Transcribe the audio into text."
"""What the model is asked, after the sound."""

FORMATS = ("json", "text")
WINDOW_S = 30.0
"""Of a checkpoint that does not say how long it listens."""

_UNSUPPORTED = ("language", "prompt", "timestamp_granularities[]", "include[]", "stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription(Prepared):
    """A chat about the whole file, of which the model hears one window after the other."""

    as_text: bool
    window_s: float

    def window(self, number: int) -> CallSpec:
        """What is asked about one of them."""
        spec = self.spec
        (part,) = spec.draft.parts
        options = replace(part.options, begin_s=number * self.window_s, most_s=self.window_s)
        return replace(spec, draft=replace(spec.draft, parts=(replace(part, options=options),)))


def transcription(
    raw: bytes, tenant: str, *, content_type: str, front: Front, model_name: str
) -> Transcription:
    """Greedy, with a prompt that is always the same. EpdError names the field at fault."""
    fields = read_form(raw, content_type)
    file = fields.pop("file", None)
    if not file:
        raise BadRequest("file is missing, or empty", param="file")
    words = {name: value.decode("utf-8", "replace") for name, value in fields.items()}
    wanted = words.pop("response_format", "json")
    if wanted not in FORMATS:
        raise BadRequest("response_format must be json or text", param="response_format")
    model = words.pop("model", model_name)
    most_tokens = _count(words.pop("max_completion_tokens", ""))
    _check(words)
    audio = {"data": base64.b64encode(file).decode("ascii")}
    said: list[dict[str, Any]] = [
        {"type": "input_audio", "input_audio": audio},
        {"type": "text", "text": PROMPT},
    ]
    body = ChatRequest(
        model=model,
        messages=[ChatMessage.model_validate({"role": "user", "content": said})],
        temperature=0,
        max_completion_tokens=most_tokens,
    )
    shape = ChatShape(body, model_name=model_name, texts=front.builder.token_texts)
    with named_as(lambda message, part: "file"):
        prepared = front.of_chat(body, tenant, shape, model_name=model_name)
    window_s = window_of(front.folder)
    asked = {one.name: getattr(prepared, one.name) for one in dataclasses.fields(prepared)}
    return Transcription(**asked, as_text=wanted == "text", window_s=window_s)


def _check(words: dict[str, str]) -> None:
    for name, value in words.items():
        if name == "temperature":
            if value not in ("", "0", "0.0"):
                raise BadRequest("temperature: transcriptions are greedy", param=name)
        elif name in _UNSUPPORTED:
            if value not in ("", "false"):
                raise BadRequest(
                    f"{name} is not supported by this server", param=name, code="unsupported_field"
                )
        else:
            raise BadRequest(f"unknown field: {name[:100]}", param=name, code="unknown_field")


def _count(value: str) -> int | None:
    if not value:
        return None
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:10]) <= MAX_TOKENS:
        param = "max_completion_tokens"
        raise BadRequest(f"{param} must be a whole number from 1 on", param=param)
    return int(value[:10])


@cache
def window_of(folder: Path) -> float:
    """How many seconds the checkpoint's feature extractor listens to at once."""
    for name, inside in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "feature_extractor"),
    ):
        file = folder / name
        found = json.loads(file.read_bytes()) if file.is_file() else {}
        found = found.get(inside) if inside and isinstance(found, dict) else found
        seconds = found.get("chunk_length") if isinstance(found, dict) else None
        if isinstance(seconds, int | float) and seconds > 0:
            return float(seconds)
    return WINDOW_S
