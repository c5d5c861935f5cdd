"""The grammars of a small tokenizer that is trained here, and random schemas with their judge."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from epd.grammar import Grammars
from epd.models.random_tokenizer import build_tokenizer

VOCAB = 320
_TRAINED = 296


@cache
def tokenizer() -> Any:
    """Bytes, a few longer tokens, and special ones; the model has rows for some more."""
    return build_tokenizer(trained=_TRAINED, known=_TRAINED, max_context=4096, template=None)


def eos() -> int:
    found: int = tokenizer().convert_tokens_to_ids("<|im_end|>")
    return found


@cache
def grammars() -> Grammars:
    return Grammars(
        lambda: str(tokenizer().backend_tokenizer.to_str()), vocab_size=VOCAB, eos_token_ids=[eos()]
    )


def ids(text: str) -> list[int]:
    found: list[int] = tokenizer().encode(text, add_special_tokens=False)
    return found


def text(token_ids: list[int]) -> str:
    found: str = tokenizer().decode(token_ids, skip_special_tokens=True)
    return found


def allowed(mask: bytes) -> set[int]:
    """The ids whose bits are set."""
    return {8 * at + bit for at, byte in enumerate(mask) for bit in range(8) if byte >> bit & 1}


def random_schema(chance: random.Random, depth: int = 2) -> dict[str, Any]:
    """Of values that end soon, whatever is drawn."""
    kinds = ["integer", "boolean", "string", "enum", "null"] + ["object", "array"] * (depth > 0)
    kind = chance.choice(kinds)
    if kind == "enum":
        return {"enum": ["rot", 7, None, "\U0001f600"]}
    if kind == "integer":
        return {"type": kind, "minimum": -20, "maximum": chance.randrange(500)}
    if kind == "string":
        return {"type": kind, "maxLength": chance.randrange(1, 9)}
    if kind == "array":
        items = random_schema(chance, depth - 1)
        return {"type": kind, "items": items, "minItems": 1, "maxItems": 3}
    if kind == "object":
        names = chance.sample(["a", "b c", 'q"', "\u00e9"], chance.randrange(1, 4))
        properties = {name: random_schema(chance, depth - 1) for name in names}
        return {
            "type": kind,
            "properties": properties,
            "required": names,
            "additionalProperties": False,
        }
    return {"type": kind}


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """Whether one of the schemas above has this value."""
    match schema.get("type"):
        case "integer":
            whole = isinstance(value, int) and not isinstance(value, bool)
            return whole and schema["minimum"] <= value <= schema["maximum"]
        case "string":
            return isinstance(value, str) and len(value) <= schema["maxLength"]
        case "array":
            least, most = schema["minItems"], schema["maxItems"]
            fits = isinstance(value, list) and least <= len(value) <= most
            return fits and all(accepts(schema["items"], entry) for entry in value)
        case "object":
            of_each = schema["properties"]
            fits = isinstance(value, dict) and value.keys() == of_each.keys()
            return fits and all(accepts(of_each[name], value[name]) for name in value)
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
    return value in schema["enum"]
