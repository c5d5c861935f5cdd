"""Reads the tokenizer and the chat template of a checkpoint folder, without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from epd.errors import ConfigError


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The fast tokenizer. Slow formats are refused: converting them needs other libraries."""
    if not (folder / "tokenizer.json").is_file():
        raise ConfigError(f"{folder} has no tokenizer.json")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the library raises bare Exception for a broken file
        raise ConfigError(f"cannot read the tokenizer in {folder}: {error}") from error


def read_template(folder: Path, tokenizer: PreTrainedTokenizerFast, default: str | None) -> str:
    """The template's source, in the order in which Hugging Face's processors look for it.

    `default` is what the family's processor has where its folder says nothing.
    """
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return jinja.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        template = _read_json(folder / name).get("chat_template")
        if template is not None:
            return _default_of(template, folder)
    if default is not None:
        return default
    if tokenizer.chat_template is not None:
        return _default_of(tokenizer.chat_template, folder)
    raise ConfigError(f"{folder} has no chat template")


def read_file(template: Path) -> str:
    """A template that the operator put in place of the checkpoint's."""
    try:
        return template.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the chat template {template}: {error}") from error


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ConfigError(f"cannot read {file}: {error}") from error
    return content if isinstance(content, dict) else {}


def _default_of(template: Any, folder: Path) -> str:
    """Several named templates may be given; chats use the one called "default"."""
    if isinstance(template, dict):
        template = template.get("default")
    if not isinstance(template, str):
        raise ConfigError(f"{folder} has several chat templates and none is named default")
    return template


def tokenizer_json(folder: Path) -> str:
    """All of it in one text, added tokens included, as the library `tokenizers` reads it."""
    tokenizer = read_tokenizer(folder).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    text: str = tokenizer.to_str()
    return text
