"""Chats become prompts and tokens become text: templates, tokenising, detokenising. No torch."""

from epd.prompt.builder import PromptBuilder
from epd.prompt.chat import ItemPart, Message, TextPart, place_of
from epd.prompt.detokenizer import Detokenizer
from epd.prompt.draft import Draft, MediaPart
from epd.prompt.source import Source
from epd.prompt.stops import StopStrings
from epd.prompt.template import Template
from epd.prompt.token_texts import TokenTexts

__all__ = [
    "Detokenizer",
    "Draft",
    "ItemPart",
    "MediaPart",
    "Message",
    "PromptBuilder",
    "Source",
    "StopStrings",
    "Template",
    "TextPart",
    "TokenTexts",
    "place_of",
]
