"""Chats become prompts and tokens become text: templates, tokenising, detokenising. No torch."""

from epd.prompt.builder import PromptBuilder
from epd.prompt.chat import ItemPart, Message, Rendering, TextPart, ToolCall, place_of
from epd.prompt.detokenizer import Detokenizer
from epd.prompt.draft import Draft, MediaPart
from epd.prompt.source import Source
from epd.prompt.stops import StopStrings
from epd.prompt.template import Template
from epd.prompt.token_texts import TokenTexts
from epd.prompt.tokenizer import tokenizer_json

__all__ = [
    "Detokenizer",
    "Draft",
    "ItemPart",
    "MediaPart",
    "Message",
    "PromptBuilder",
    "Rendering",
    "Source",
    "StopStrings",
    "Template",
    "TextPart",
    "TokenTexts",
    "ToolCall",
    "place_of",
    "tokenizer_json",
]
